//! `bench plots`: pictures of what the last runs wrote, into `docs/`.
//!
//! Each file of figures is one picture; of one that is not there, nothing is drawn and the picture stays as it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use serde_json::Value;

const SIZE: (u32, u32) = (860, 420);
const FONT: (&str, i32) = ("sans-serif", 15);
const TITLE: (&str, i32) = ("sans-serif", 19);
/// How far lines stand beside each other, and what is left free on both sides: parts of the axis.
const BESIDE: f64 = 0.006;
const MARGIN: f64 = 0.03;
/// Told apart by those who see few colours, too.
const COLOURS: [RGBColor; 5] =
    [RGBColor(0, 90, 160), RGBColor(213, 94, 0), RGBColor(0, 140, 110), RGBColor(150, 90, 170), RGBColor(90, 90, 90)];

/// A figure with its error, where there are enough slices to tell.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    name: String,
    value: f64,
    error: Option<f64>,
}

impl Bar {
    fn spread(&self) -> f64 {
        self.error.unwrap_or_default()
    }
}

/// A line of points.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    points: Vec<Point>,
}

/// A point, with half of the interval that its height lies in, where there are enough slices to tell.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    x: f64,
    y: f64,
    error: Option<f64>,
}

impl Point {
    /// What a figure says for `x`.
    fn of(x: &Value, figure: &Value) -> Option<Self> {
        Some(Self { x: x.as_f64()?, y: figure["median"].as_f64()?, error: figure["error"].as_f64() })
    }

    fn ends(self) -> [f64; 2] {
        let spread = self.error.unwrap_or_default();
        [self.y - spread, self.y + spread]
    }
}

/// Draws what there is.
pub fn run(target: &Path) -> Result<()> {
    let docs = PathBuf::from("docs");
    ensure!(docs.is_dir(), "there is no docs/ here: run it where the repository is");
    let mut drawn = 0;
    for (file, picture, draw) in PICTURES {
        let Ok(text) = fs::read(target.join(file)) else { continue };
        let told = serde_json::from_slice(&text).with_context(|| file.to_owned())?;
        let into = docs.join(picture);
        draw(&told, &into).with_context(|| format!("{file} into {}", into.display()))?;
        println!("{}", into.display());
        drawn += 1;
    }
    ensure!(drawn > 0, "no figures in {}: make bench", target.display());
    Ok(())
}

type Draw = fn(&Value, &Path) -> Result<()>;

/// Figures, the picture of them, and how it is drawn.
const PICTURES: [(&str, &str, Draw); 4] = [
    ("bench.json", "bench-variants.svg", |told, into| {
        bars(into, "CPU time of Envoy for a request, µs over bare (half of the 95 % interval)", &variants(told)?)
    }),
    ("bench.json", "bench-connections.svg", |told, into| {
        let axes = ("connections", "requests a second, of bare's");
        lines(into, "Throughput by number of connections", axes, &by_connections(told)?)
    }),
    ("bench-feeds.json", "bench-feeds.svg", |told, into| {
        let axes = ("workers that follow the feed", "ms until all of them have it");
        lines(into, "How fast a change arrives", axes, &by_followers(told)?)
    }),
    ("bench-scale.json", "bench-scale.svg", |told, into| {
        let axes = ("how many", "CPU time of Envoy for a request, of that with 10");
        lines(into, "Many destinations, many sessions", axes, &by_size(told)?)
    }),
];

/// CPU time over bare, the variants in the order of their cost.
fn variants(told: &Value) -> Result<Vec<Bar>> {
    let all = told["variants"].as_object().context("no variants")?;
    let mut bars: Vec<Bar> = all
        .iter()
        .filter_map(|(name, of)| {
            let error = of["error"]["cpu_us_over_bare"].as_f64();
            Some(Bar { name: name.clone(), value: of["cpu_us_over_bare"].as_f64()?, error })
        })
        .filter(|bar| bar.name != "bare")
        .collect();
    bars.sort_by(|one, other| one.value.total_cmp(&other.value));
    Ok(bars)
}

fn by_connections(told: &Value) -> Result<Vec<Line>> {
    let sizes = told["connections"].as_array().context("no series over connections")?;
    let points = sizes.iter().flat_map(|at| {
        let rows = at["variants"].as_array().into_iter().flatten();
        rows.filter_map(|row| {
            Some((text(&row["variant"]).to_owned(), Point::of(&at["connections"], &row["rps_vs_bare"])?))
        })
    });
    Ok(gathered(points.filter(|(name, _)| name != "bare")))
}

fn by_followers(told: &Value) -> Result<Vec<Line>> {
    let rows = told["rows"].as_array().context("no rows")?;
    let points = rows.iter().flat_map(|row| {
        ["p50", "p99"].into_iter().filter_map(|which| {
            let (x, y) = (row["followers"].as_f64()?, row["last_told_ms"][which].as_f64()?);
            Some((which.to_owned(), Point { x, y, error: None }))
        })
    });
    Ok(gathered(points))
}

fn by_size(told: &Value) -> Result<Vec<Line>> {
    let all = told["series"].as_array().context("no series")?;
    let points = all.iter().flat_map(|series| {
        let name = format!("{}, by {}", text(&series["many"]), text(&series["by"]));
        let rows = series["rows"].as_array().into_iter().flatten();
        rows.filter_map(move |row| Some((name.clone(), Point::of(&row["size"], &row["cpu_vs_smallest"])?)))
    });
    Ok(gathered(points))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Points by the name of their line, in the order in which the names come.
fn gathered(points: impl Iterator<Item = (String, Point)>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (name, point) in points {
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point] }),
        }
    }
    lines
}

fn bars(into: &Path, title: &str, bars: &[Bar]) -> Result<()> {
    ensure!(!bars.is_empty(), "nothing to draw");
    let most = bars.iter().map(|bar| bar.value + bar.spread()).fold(1.0, f64::max);
    let least = bars.iter().map(|bar| bar.value - bar.spread()).fold(0.0, f64::min);
    let area = SVGBackend::new(into, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let count = bars.len() as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, TITLE)
        .margin(14)
        .x_label_area_size(34)
        .y_label_area_size(160)
        .build_cartesian_2d(least..most * 1.15, 0.0..count)
        .map_err(failed)?;
    let name = |at: &f64| {
        // Only the middle of a bar has a name.
        let index = count - at - 0.5;
        let is_middle = (index - index.round()).abs() < 0.01;
        let bar = bars.get(index.round() as usize).filter(|_| is_middle && index > -0.5);
        bar.map(|bar| bar.name.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(2 * bars.len() + 1)
        .y_label_formatter(&name)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(FONT)
        .draw()
        .map_err(failed)?;
    for (index, bar) in bars.iter().enumerate() {
        let middle = count - index as f64 - 0.5;
        let colour = if bar.name.starts_with("attache") { COLOURS[0] } else { COLOURS[4] };
        let body = Rectangle::new([(0.0, middle - 0.32), (bar.value, middle + 0.32)], colour.mix(0.75).filled());
        let (low, high) = (bar.value - bar.spread(), bar.value + bar.spread());
        let error = PathElement::new(vec![(low, middle), (high, middle)], BLACK.stroke_width(2));
        let said = bar.error.map_or("?".to_owned(), |error| format!("{error:.0}"));
        let said = Text::new(format!("{:.0} ±{said}", bar.value), (high + most * 0.01, middle + 0.15), FONT);
        chart.draw_series([body]).map_err(failed)?;
        chart.draw_series([error]).map_err(failed)?;
        chart.draw_series([said]).map_err(failed)?;
    }
    area.present().map_err(failed)
}

/// Lines over a logarithmic axis, with the error of each point.
fn lines(into: &Path, title: &str, (x, y): (&str, &str), lines: &[Line]) -> Result<()> {
    let all = || lines.iter().flat_map(|line| &line.points);
    ensure!(all().next().is_some(), "nothing to draw");
    let least = all().map(|point| point.x).fold(f64::MAX, f64::min);
    let most = all().map(|point| point.x).fold(least * 2.0, f64::max);
    let high = all().flat_map(|point| point.ends()).fold(0.0, f64::max) * 1.1;
    // A label at what was measured.
    let mut at: Vec<f64> = all().map(|point| point.x).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    // Beside each other, so that no error hides behind another line's.
    let step = (most / least).powf(BESIDE);
    let mut beside = lines.to_vec();
    for (index, line) in beside.iter_mut().enumerate() {
        let by = step.powf(index as f64 - (lines.len() as f64 - 1.0) / 2.0);
        line.points.iter_mut().for_each(|point| point.x *= by);
    }
    let margin = (most / least).powf(MARGIN);
    let xs = (least / margin..most * margin).log_scale().with_key_points(at);
    // Where the lines do not begin.
    let begins_low = lines.iter().filter_map(|line| line.points.first()).all(|point| point.y < high / 2.0);
    let key = if begins_low { SeriesLabelPosition::UpperLeft } else { SeriesLabelPosition::LowerLeft };
    draw_lines(into, (title, x, y), (&beside, key), xs, 0.0..high)
}

fn draw_lines<X, Y>(
    into: &Path,
    (title, x, y): (&str, &str, &str),
    (lines, key): (&[Line], SeriesLabelPosition),
    xs: X,
    ys: Y,
) -> Result<()>
where
    X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
    Y: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
{
    let area = SVGBackend::new(into, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, TITLE)
        .margin(14)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(xs, ys)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|x| thousands(*x))
        .label_style(FONT)
        .draw()
        .map_err(failed)?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let points = line.points.iter().map(|point| (point.x, point.y));
        let drawn = chart.draw_series(LineSeries::new(points, style)).map_err(failed)?;
        let sample = move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style);
        drawn.label(line.name.clone()).legend(sample);
        let points = line.points.iter().map(|point| Circle::new((point.x, point.y), 3, colour.filled()));
        chart.draw_series(points).map_err(failed)?;
        let errors = line.points.iter().filter(|point| point.error.is_some());
        let errors = errors.map(|point| PathElement::new(point.ends().map(|y| (point.x, y.max(0.0))).to_vec(), style));
        chart.draw_series(errors).map_err(failed)?;
    }
    let mut labels = chart.configure_series_labels();
    labels.position(key).margin(12).label_font(FONT).background_style(WHITE.mix(0.8)).draw().map_err(failed)?;
    area.present().map_err(failed)
}

/// 100,000.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bars_come_in_the_order_of_their_cost_without_bare() {
        let told = json!({"variants": {
            "bare": {"cpu_us_over_bare": 0.1, "error": {}},
            "lua": {"cpu_us_over_bare": 13.7, "error": {"cpu_us_over_bare": 1.6}},
            "native": {"cpu_us_over_bare": 1.7, "error": {"cpu_us_over_bare": null}},
            "other": {"absent": "not built"},
        }});
        let names: Vec<_> = variants(&told).unwrap().into_iter().map(|bar| (bar.name, bar.error)).collect();
        assert_eq!(names, [("native".to_owned(), None), ("lua".to_owned(), Some(1.6))]);
    }

    #[test]
    fn a_line_has_the_points_of_its_name() {
        let point = |x, y| Point { x, y, error: None };
        let points = [("a", point(1.0, 2.0)), ("b", point(1.0, 3.0)), ("a", point(4.0, 5.0))];
        let lines = gathered(points.into_iter().map(|(name, point)| (name.to_owned(), point)));
        assert_eq!(lines[0], Line { name: "a".to_owned(), points: vec![point(1.0, 2.0), point(4.0, 5.0)] });
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn both_kinds_of_picture_hold_what_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("bars.svg"), dir.path().join("lines.svg"));
        let all = [
            Bar { name: "first".into(), value: 3.0, error: Some(1.0) },
            Bar { name: "next".into(), value: 9.0, error: None },
        ];
        bars(&one, "Bars", &all).unwrap();
        let far = Point { x: 10_000.0, y: 0.5, error: Some(0.25) };
        let line = Line { name: "the line".into(), points: vec![Point { x: 1.0, y: 1.0, error: None }, far] };
        lines(&other, "Lines", ("x", "y"), &[line]).unwrap();
        let (one, other) = (fs::read_to_string(one).unwrap(), fs::read_to_string(other).unwrap());
        assert!(["first", "next", "3 ±1", "9 ±?"].iter().all(|text| one.contains(text)), "{one}");
        assert!(["the line", "Lines", "\n10,000\n"].iter().all(|text| other.contains(text)), "{other}");
        assert!(bars(&dir.path().join("none.svg"), "None", &[]).is_err());
    }
}
