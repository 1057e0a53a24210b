//! Drawings as SVG, small and without help.
//!
//! Shapes have classes, not colours: the style that stands once in a file, or on the page,
//! knows them for light and for dark.

use std::fmt::{Display, Write as _};

/// Colours by name.
type Palette = [(&'static str, &'static str); 14];

const LIGHT: Palette = [
    ("paper", "#ffffff"),
    ("panel", "#f6f7f9"),
    ("ink", "#1a1d21"),
    ("muted", "#68707c"),
    ("grid", "#dde1e6"),
    ("good", "#197a43"),
    ("bad", "#b3362b"),
    ("bare", "#aeb6c0"),
    ("direct", "#8a95a3"),
    ("vxlan", "#d98a2b"),
    ("tun", "#c3b59b"),
    ("overlay", "#2463d6"),
    ("overlay-off", "#8fb0ea"),
    ("ours", "#2463d6"),
];
const DARK: Palette = [
    ("paper", "#131519"),
    ("panel", "#1b1e24"),
    ("ink", "#e8eaed"),
    ("muted", "#969fac"),
    ("grid", "#31363f"),
    ("good", "#52c284"),
    ("bad", "#f0796c"),
    ("bare", "#59626e"),
    ("direct", "#717d8c"),
    ("vxlan", "#e09a42"),
    ("tun", "#7d735f"),
    ("overlay", "#5b93ff"),
    ("overlay-off", "#34558f"),
    ("ours", "#7aa7ff"),
];

/// Styles of shapes, with colours in angle brackets.
const SHAPES: &str = "\
    svg text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,\
    sans-serif;fill:<ink>;font-variant-numeric:tabular-nums}\
    svg .title{font-weight:600;font-size:14px}svg .muted{fill:<muted>;font-size:12px}\
    svg .strong{font-weight:600}svg .badge{fill:<muted>;font-size:12px}\
    svg .badge.overlay{fill:<ours>;font-weight:600}\
    svg .grid{stroke:<grid>}svg .axis{stroke:<muted>}\
    svg .whisker{stroke:<ink>;stroke-width:1.25}\
    svg .goal{stroke:<good>;stroke-dasharray:4 4}svg .cut{stroke:<paper>;stroke-width:3}\
    svg .paper{fill:<paper>}\
    rect.bare{fill:<bare>}rect.direct{fill:<direct>}rect.vxlan{fill:<vxlan>}\
    rect.tun{fill:<tun>}rect.overlay{fill:<overlay>}rect.overlay-off{fill:<overlay-off>}\
    rect.ceiling{fill:<bare>}rect.baseline{fill:<overlay-off>}\
    rect.mixed,rect.mixed-back,rect.services{fill:<overlay>}rect.services-vxlan{fill:<vxlan>}\
    rect.one-uplink{fill:<overlay-off>}rect.two-uplinks{fill:<overlay>}\
    .curve{fill:none;stroke-width:2.5;stroke-linejoin:round}\
    .curve.vxlan{stroke:<vxlan>}.curve.overlay{stroke:<overlay>}\
    .curve.second{stroke-dasharray:7 4}\
    circle.vxlan{fill:<vxlan>}circle.overlay{fill:<overlay>}";

/// A style for light and for dark, in which `<name>` is a colour.
///
/// The colours are written out: not everything that shows SVG knows variables.
pub(super) fn style(template: &str) -> String {
    let [light, dark] = [LIGHT, DARK].map(|palette| {
        palette
            .iter()
            .fold(template.to_owned(), |style, (name, colour)| {
                style.replace(&format!("<{name}>"), colour)
            })
    });
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}")
}

/// The style of [`Drawing::inline`] drawings.
pub(super) fn shapes() -> String {
    style(SHAPES)
}

/// Where a text stands in relation to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Shapes in a frame; units are pixels.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    pub(super) width: f64,
    pub(super) height: f64,
    body: String,
}

impl Drawing {
    pub(super) const fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            body: String::new(),
        }
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{}</text>"#,
            escape(text)
        ));
    }

    /// A bar with what a pointer over it is told.
    pub(super) fn bar(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        class: &str,
        told: &str,
    ) {
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="3" class="{class}"><title>{}</title></rect>"#,
            escape(told)
        ));
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.push(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        ));
    }

    pub(super) fn curve(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.push(format_args!(
            r#"<polyline points="{}" class="curve {class}"/>"#,
            points.join(" ")
        ));
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), class: &str, told: &str) {
        self.push(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" class="{class}"><title>{}</title></circle>"#,
            escape(told)
        ));
    }

    /// Drawings one below the other.
    pub(super) fn stack(drawings: &[Self]) -> Self {
        const GAP: f64 = 22.0;
        let mut stack = Self::new(0.0, 0.0);
        for drawing in drawings {
            let y = if stack.height > 0.0 {
                stack.height + GAP
            } else {
                0.0
            };
            stack.push(format_args!(
                r#"<g transform="translate(0 {y:.1})">{}</g>"#,
                drawing.body
            ));
            stack.width = stack.width.max(drawing.width);
            stack.height = y + drawing.height;
        }
        stack
    }

    /// A file of its own.
    pub(super) fn standalone(&self, title: &str) -> String {
        const MARGIN: f64 = 20.0;
        let (width, height) = (self.width + 2.0 * MARGIN, self.height + 2.0 * MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"-{MARGIN} -{MARGIN} {width:.0} {height:.0}\" role=\"img\">\n\
             <title>{}</title>\n\
             <style>{}</style>\n\
             <rect x=\"-{MARGIN}\" y=\"-{MARGIN}\" width=\"100%\" height=\"100%\" class=\"paper\"/>\n\
             {}</svg>\n",
            escape(title),
            shapes(),
            self.body
        )
    }

    /// A part of a page that has the style.
    pub(super) fn inline(&self, label: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\">{}</svg>\n",
            self.width,
            self.height,
            escape(label),
            self.body
        )
    }

    fn push(&mut self, shape: impl Display) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.body, "{shape}");
    }
}

/// A text inside of an element or of an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are none of XML's.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_become_elements() {
        assert_eq!(
            escape("<a href=\"x\">&'\u{1b}"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39; "
        );
        let mut drawing = Drawing::new(10.0, 10.0);
        drawing.text((1.0, 2.0), Anchor::End, "muted", "a < b");
        let file = drawing.standalone("x & y");
        assert!(file.contains(">a &lt; b</text>"));
        assert!(file.contains("<title>x &amp; y</title>"));
    }

    #[test]
    fn every_colour_has_a_value_in_light_and_in_dark() {
        assert!(!shapes().contains('<'));
        for (light, dark) in LIGHT.iter().zip(DARK) {
            assert_eq!(light.0, dark.0);
        }
    }

    #[test]
    fn every_subject_has_a_colour() {
        for subject in crate::bench::subject::Subject::ALL {
            let rule = format!("rect.{subject}");
            assert!(
                SHAPES.contains(&format!("{rule}{{")) || SHAPES.contains(&format!("{rule},")),
                "{subject}"
            );
        }
    }

    #[test]
    fn a_stack_is_as_high_as_its_drawings_and_their_gaps() {
        let drawings = [Drawing::new(100.0, 50.0), Drawing::new(80.0, 30.0)];
        let stack = Drawing::stack(&drawings);
        assert_eq!((stack.width, stack.height), (100.0, 102.0));
    }
}
