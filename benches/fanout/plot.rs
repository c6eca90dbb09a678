//! Curves as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 55.0;
/// Blue and orange of Okabe and Ito, which differ for everybody.
const COLOURS: [&str; 2] = ["#0072b2", "#d55e00"];

pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Curves over one pair of axes that begin at 0.
pub struct Plot {
    pub x: &'static str,
    pub y: &'static str,
    pub curves: Vec<Curve>,
}

impl Plot {
    pub fn svg(&self) -> String {
        let most = |of: fn(&(f64, f64)) -> f64| {
            let values = self.curves.iter().flat_map(|curve| curve.points.iter().map(of));
            values.fold(0.0, f64::max) * 1.05
        };
        let (most_x, most_y) = (most(|point| point.0), most(|point| point.1));
        let x = |value: f64| LEFT + value / most_x * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / most_y * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        let mut add = |line: String| writeln!(svg, "{line}").expect("a string takes text");
        for at in ticks(most_x) {
            let (x, bottom, label) = (x(at), HEIGHT - BOTTOM, HEIGHT - BOTTOM + 18.0);
            add(format!("<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#dddddd\"/>"));
            add(format!("<text x=\"{x:.1}\" y=\"{label}\" text-anchor=\"middle\">{at}</text>"));
        }
        for at in ticks(most_y) {
            let (y, right) = (y(at), WIDTH - RIGHT);
            add(format!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#dddddd\"/>"));
            let (x, y) = (LEFT - 8.0, y + 4.0);
            add(format!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{at}</text>"));
        }
        let (middle, below) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0);
        add(format!("<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", self.x));
        add(format!("<text x=\"10\" y=\"20\">{}</text>", self.y));
        for (number, (curve, colour)) in self.curves.iter().zip(COLOURS).enumerate() {
            let points: Vec<String> = curve
                .points
                .iter()
                .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
                .collect();
            let line = points.join(" ");
            add(format!(
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            ));
            for point in &points {
                let (x, y) = point.split_once(',').expect("a point has two numbers");
                add(format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3.5\" fill=\"{colour}\"/>"));
            }
            let at = LEFT + 20.0 + 330.0 * number as f64;
            add(format!("<text x=\"{at}\" y=\"38\" fill=\"{colour}\">{}</text>", curve.name));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// About five round numbers up to `most`.
fn ticks(most: f64) -> impl Iterator<Item = f64> {
    let rough = most / 5.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(magnitude);
    (0..).map(move |nth| f64::from(nth) * step).take_while(move |at| *at <= most)
}
