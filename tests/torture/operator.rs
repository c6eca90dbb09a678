//! Moves routes from group to group, whatever else happens, and takes some of the moves back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyviz_proto as proto;
use keyviz_proto::routes_client::RoutesClient;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::support::PATIENCE;
use crate::workload::Workload;

const GROUPS: u64 = 3;

/// What became of the moves.
#[derive(Default, Debug)]
pub struct Moves {
    pub moved: usize,
    pub abandoned: usize,
}

/// Moves routes until the clients are to end, then waits until no move is under way.
pub async fn run(workload: Arc<Workload>, seed: u64) -> Moves {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x0E0E);
    // By number: whether it moved its route.
    let mut ended: BTreeMap<u64, bool> = BTreeMap::new();
    let mut deadline = None;
    loop {
        let mut nodes: Vec<_> = workload.nodes().iter().map(|node| routes(node)).collect();
        // What does not answer, or refuses, may do better next time.
        let at = rng.random_range(0..nodes.len());
        if !workload.is_stopped() {
            let _ = look(&mut nodes[at], &mut ended).await;
            let _ = act(&mut nodes[at], &mut rng).await;
        } else {
            let mut idle = 0;
            for node in &mut nodes {
                idle += usize::from(look(node, &mut ended).await.is_ok_and(|left| left == 0));
            }
            if idle == nodes.len() {
                break;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            assert!(Instant::now() < deadline, "moves do not come to their end");
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_000))).await;
    }
    let moved = ended.values().filter(|moved| **moved).count();
    Moves { moved, abandoned: ended.len() - moved }
}

fn routes(address: &str) -> RoutesClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.expect("a bound address is one").timeout(Duration::from_secs(4));
    RoutesClient::new(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy())
}

/// Takes down what ended; how many moves are under way.
async fn look(
    routes: &mut RoutesClient<Channel>,
    ended: &mut BTreeMap<u64, bool>,
) -> Result<usize, Status> {
    let history = routes.route_history(proto::RouteHistoryRequest::default()).await?.into_inner();
    let (over, under_way): (Vec<_>, Vec<_>) =
        history.moves.into_iter().partition(|moving| moving.ended_ms > 0);
    ended.extend(over.iter().map(|moving| (moving.move_id, moving.moved_version > 0)));
    Ok(under_way.len())
}

async fn act(routes: &mut RoutesClient<Channel>, rng: &mut StdRng) -> Result<(), Status> {
    let list = routes.list_routes(proto::ListRoutesRequest::default()).await?.into_inner();
    if let Some(moving) = list.moves.first()
        && rng.random_ratio(1, 6)
    {
        let request = proto::CancelMoveRequest { route_id: moving.route_id, ..Default::default() };
        return routes.cancel_move(request).await.map(drop);
    }
    let at = rng.random_range(0..list.routes.len().max(1));
    let Some(route) = list.routes.get(at) else { return Ok(()) };
    let to_group = (route.group_id + rng.random_range(0..GROUPS - 1)) % GROUPS + 1;
    let request =
        proto::MoveRouteRequest { route_id: route.route_id, to_group, ..Default::default() };
    routes.move_route(request).await.map(drop)
}
