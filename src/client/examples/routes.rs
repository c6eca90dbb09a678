//! Keeps a table of the routes: `cargo run -p keyviz-client --example routes -- 127.0.0.1:7401`.

use keyviz_client::{Client, RouteTable, RouteUpdate};

/// Watches the routes at `addresses` for `updates` updates, and returns the table.
pub async fn run(
    addresses: &[String],
    updates: usize,
) -> Result<RouteTable, Box<dyn std::error::Error>> {
    let client = Client::new(addresses)?;
    let mut watch = client.watch_routes();
    for _ in 0..updates {
        match watch.next().await? {
            RouteUpdate::Leaders => {}
            RouteUpdate::Table => println!("{} routes", watch.table().len()),
            RouteUpdate::Changes(changes) => {
                for change in changes {
                    println!("version {}: {}", change.catalog_version, change.kind);
                }
            }
        }
        if let Some(route) = watch.table().route_of(b"user/42") {
            println!("user/42 is in route {}, group {}", route.route_id, route.group_id);
        }
    }
    Ok(watch.into_table())
}

#[tokio::main]
// Tests include this file and call `run`.
#[allow(dead_code)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    run(&addresses, usize::MAX).await?;
    Ok(())
}
