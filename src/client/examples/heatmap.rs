//! Prints the hottest rows of the last ten minutes, and then columns as they close:
//! `cargo run -p keyviz-client --example heatmap -- 127.0.0.1:7401`.

use std::time::Duration;

use keyviz_client::{Client, ColumnsQuery, MatrixQuery, Series};

/// Runs the example against the nodes at `addresses`, for `updates` updates of the stream.
pub async fn run(addresses: &[String], updates: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Client::builder().nodes(addresses);
    // Heatmaps need the admin token where the cluster has one.
    if let Ok(path) = std::env::var("KEYVIZ_TOKEN_FILE") {
        builder = builder.token_file(path);
    }
    let client = builder.build()?;

    let last = Duration::from_secs(600);
    let matrix = client.matrix(MatrixQuery::new(Series::Writes).last(last).max_rows(64)).await?;
    println!("{} writes, {} of {} nodes", matrix.total, matrix.responded, matrix.expected);
    // A member that is missing has a status that says why, and its cells are `partial`.
    for node in matrix.nodes.iter().filter(|node| !node.ok) {
        println!("node {}: {}", node.id, node.error);
    }
    let mut rows: Vec<_> = matrix.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.values.iter().sum::<u64>()));
    for row in rows.iter().take(5) {
        println!("{:>10}  {}", row.values.iter().sum::<u64>(), row.label);
    }

    let mut columns = client.columns(ColumnsQuery::new(Series::Writes));
    for _ in 0..updates {
        let update = columns.next().await?;
        for column in update.matrix.iter().flat_map(|matrix| &matrix.columns) {
            println!("column {} to {}, open: {}", column.start_ms, column.end_ms, column.open);
        }
    }
    Ok(())
}

#[tokio::main]
// Tests include this file and call `run`.
#[allow(dead_code)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    run(&addresses, usize::MAX).await
}
