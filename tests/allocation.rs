//! free_hot_path: what allocates and what does not, counted by the allocator itself.

use allocation_counter::measure;
use bytes::Bytes;
use keyviz_core::{GroupId, KeyRange, RouteId, RouteSpec, Sampler, SamplerConfig, Term};

fn sampler() -> Sampler {
    let sampler = Sampler::new(SamplerConfig::default()).expect("defaults are valid");
    let start = |n: u32| if n == 0 { Bytes::new() } else { Bytes::from(format!("key/{n:06}")) };
    let routes: Vec<_> = (0..1_000)
        .map(|n| RouteSpec {
            id: RouteId::new(u64::from(n) + 1).expect("from 1"),
            range: KeyRange { start: start(n), end: (n < 999).then(|| start(n + 1)) },
            group: GroupId(u64::from(n % 16) + 1),
        })
        .collect();
    sampler.publish_routes(1, routes).expect("a table");
    sampler
}

#[test]
fn free_hot_path_recording_and_locating_allocate_nothing() {
    let sampler = sampler();
    let keys: Vec<_> = (0..1_000).map(|n| format!("key/{n:06}/{}", "x".repeat(n))).collect();
    // The thread's first load leases its shard.
    let kept = sampler.epoch_full();
    let seen = measure(|| {
        for key in (0..200_000).map(|n| keys[n % keys.len()].as_bytes()) {
            let epoch = sampler.epoch();
            let located = epoch.locate(key).expect("published");
            epoch.record_write(located, key, 1, 100);
            sampler.record_read(&epoch, located, key, 1, 100);
            let located = kept.locate(key).expect("published");
            sampler.record_read(&kept, located, key, 1, 100);
        }
    });
    assert_eq!(seen.count_total, 0);
}

#[test]
fn free_hot_path_a_new_epoch_costs_a_thread_one_small_allocation() {
    let sampler = sampler();
    sampler.epoch();
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
    let seen = measure(|| drop(sampler.epoch()));
    assert_eq!(seen.count_total, 1);
    assert!(seen.bytes_total < 128);
}

#[test]
fn free_hot_path_an_old_epoch_is_recorded_under_without_allocation() {
    let sampler = sampler();
    let old = std::thread::scope(|scope| {
        scope.spawn(|| sampler.epoch_full()).join().expect("loading does not panic")
    });
    sampler.set_leader_terms(&[(GroupId(1), Some(Term(1)))]);
    sampler.epoch();
    let located = old.locate(b"key/000500").expect("published");
    let seen = measure(|| sampler.record_write(&old, located, b"key/000500", 1, 100));
    assert_eq!(seen.count_total, 0);
    let harvest = sampler.harvest();
    assert_eq!(harvest.segments.len(), 1);
}

#[test]
fn free_hot_path_the_allocator_is_watched() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1u8]))).count_total, 1);
}
