//! One panel a curve, one colour a node, as SVG.

use std::fmt::Write as _;

use super::{CURVES, NODES, Sample};

const WIDTH: f64 = 760.0;
const PANEL: f64 = 130.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
/// Of a panel, for its heading.
const HEADING: f64 = 26.0;
/// Blue, orange and green of Okabe and Ito, which differ for everybody.
const COLOURS: [&str; NODES] = ["#0072b2", "#d55e00", "#009e73"];

/// The picture of a run. Every axis begins at 0.
pub fn svg(samples: &[Sample]) -> String {
    let height = TOP + PANEL * CURVES.len() as f64 + 40.0;
    let end = samples.last().map_or(1.0, |(at, _)| *at);
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut add = |line: String| writeln!(svg, "{line}").expect("a string takes text");
    for (node, colour) in COLOURS.iter().enumerate() {
        let at = LEFT + 80.0 * node as f64;
        add(format!("<text x=\"{at}\" y=\"20\" fill=\"{colour}\">node {}</text>", node + 1));
    }
    let bottom_of_all = TOP + PANEL * CURVES.len() as f64;
    for minute in (0..).map(|nth| f64::from(nth) * 5.0).take_while(|at| at * 60.0 <= end) {
        let (x, below) = (x(minute * 60.0), bottom_of_all + 16.0);
        add(format!("<path d=\"M{x:.1} {TOP}V{bottom_of_all}\" stroke=\"#eeeeee\"/>"));
        add(format!("<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{minute}</text>"));
    }
    let (middle, below) = ((LEFT + WIDTH - RIGHT) / 2.0, bottom_of_all + 33.0);
    add(format!("<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">minutes</text>"));
    for (curve, (name, unit)) in CURVES.iter().enumerate() {
        let top = TOP + PANEL * curve as f64;
        let bottom = top + PANEL;
        let values = samples.iter().flat_map(|(_, nodes)| nodes.iter().map(|node| node[curve]));
        let most = values.fold(0.0, f64::max).max(*unit);
        let y = |value: f64| bottom - value / most * (PANEL - HEADING);
        let right = WIDTH - RIGHT;
        add(format!("<path d=\"M{LEFT} {bottom}H{right}\" stroke=\"#999999\"/>"));
        add(format!(
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{name}</text>",
            top + 16.0
        ));
        for (value, at) in [(most / unit, y(most) + 4.0), (0.0, bottom)] {
            let x = LEFT - 6.0;
            add(format!("<text x=\"{x}\" y=\"{at:.1}\" text-anchor=\"end\">{value:.0}</text>"));
        }
        for (node, colour) in COLOURS.iter().enumerate() {
            let point =
                |(at, nodes): &Sample| format!("{:.1},{:.1}", x(*at), y(nodes[node][curve]));
            let points = samples.iter().map(point).collect::<Vec<_>>().join(" ");
            add(format!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" \
                 stroke-width=\"1.2\"/>"
            ));
        }
    }
    svg.push_str("</svg>\n");
    svg
}
