//! Reads and writes keys: `cargo run -p keyviz-client --example store -- 127.0.0.1:7401`.

use keyviz_client::{Batch, Bytes, Client, Error, Swap};

/// Runs the example against the nodes at `addresses`.
pub async fn run(addresses: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(addresses)?;

    // A put is acknowledged once it is durable on a majority.
    client.put("example/a", "1").await?;
    assert_eq!(client.get("example/a").await?, Some(Bytes::from("1")));

    // Compare and swap: take a lock only if nobody holds it.
    match client.cas("example/lock", None, Some(Bytes::from("me"))).await? {
        Swap::Done => println!("took the lock"),
        Swap::Found(holder) => println!("the lock is held by {holder:?}"),
    }

    // A batch is atomic. All of its keys must be in one Raft group.
    client.batch(Batch::new().put("example/b", "2").delete("example/lock")).await?;

    let mut rows = client.scan("example/".."example0");
    while let Some((key, value)) = rows.next().await? {
        println!("{} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }

    // A write whose outcome is unknown is not repeated: read the key to find out.
    if let Err(error) = client.put("example/c", "3").await {
        match error {
            Error::Unknown { .. } => println!("c is now {:?}", client.get("example/c").await?),
            other => return Err(other.into()),
        }
    }
    println!("deleted {} keys", client.delete_range("example/".."example0").await?);
    Ok(())
}

#[tokio::main]
// Tests include this file and call `run`.
#[allow(dead_code)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    run(&addresses).await
}
