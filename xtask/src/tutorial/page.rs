//! The tutorial as one page for a browser, with nothing to load: of the Markdown that its pages use.

use std::fmt::Write as _;

const STYLE: &str = "body{max-width:60rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 sans-serif;\
color:#222;background:#fff}pre{background:#f4f6fa;border:1px solid #d0d8e8;padding:.7rem;overflow-x:auto;\
font-size:13px}code{background:#f4f6fa}pre b{color:#203a70}svg{max-width:100%;height:auto}\
td,th{text-align:left;padding:.2rem .8rem .2rem 0}section{border-top:1px solid #d0d8e8}";

/// A page of the tutorial and its drawing.
pub(super) struct Part<'a> {
    /// Its file's name, without an ending.
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) drawing: &'a str,
}

/// All of it as HTML.
pub(super) fn whole(parts: &[Part<'_>]) -> String {
    let sections: String = parts.iter().map(section).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>From one process to a cluster</title><style>{STYLE}</style></head>\n\
         <body>\n{sections}</body></html>\n"
    )
}

fn section(part: &Part<'_>) -> String {
    let mut html = format!("<section id=\"{}\">\n", part.name);
    let mut lines = part.text.lines().peekable();
    while let Some(line) = lines.next() {
        let more = |begins: fn(&str) -> bool| move |next: &&str| begins(next);
        if line.starts_with("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            html += &console(&code);
        } else if let Some(title) = line.strip_prefix("# ") {
            push(&mut html, "h1", title);
        } else if line.starts_with("![") {
            html += part.drawing;
        } else if line.starts_with('|') {
            let mut rows = vec![line];
            while let Some(row) = lines.next_if(more(|next| next.starts_with('|'))) {
                rows.push(row);
            }
            html += &table(&rows);
        } else if is_item(line) {
            let mut items = vec![item(line).to_owned()];
            while let Some(next) = lines.next_if(more(|next| !next.is_empty())) {
                match items.last_mut() {
                    Some(last) if !is_item(next) => {
                        last.push(' ');
                        last.push_str(next.trim());
                    }
                    _ => items.push(item(next).to_owned()),
                }
            }
            let items = items.iter().map(|one| format!("<li>{}</li>", inline(one)));
            let _ = writeln!(html, "<ol>{}</ol>", items.collect::<String>());
        } else if !line.is_empty() {
            let mut words = line.to_owned();
            let continues = more(|next| !next.is_empty() && !next.starts_with("```"));
            while let Some(next) = lines.next_if(continues) {
                words += " ";
                words += next;
            }
            push(&mut html, "p", &words);
        }
    }
    html + "</section>\n"
}

fn is_item(line: &str) -> bool {
    line.split_once(". ")
        .is_some_and(|(number, _)| number.parse::<u8>().is_ok())
}

fn item(line: &str) -> &str {
    line.split_once(". ").map_or(line, |(_, words)| words)
}

fn push(html: &mut String, tag: &str, words: &str) {
    // A string takes everything.
    let _ = writeln!(html, "<{tag}>{}</{tag}>", inline(words));
}

/// What is typed is bold, what is seen is not.
fn console(lines: &[&str]) -> String {
    let line = |line: &&str| {
        let typed = line.starts_with("# ") || line.starts_with('>');
        let text = escaped(line);
        if typed {
            format!("<b>{text}</b>\n")
        } else {
            format!("{text}\n")
        }
    };
    format!(
        "<pre>{}</pre>\n",
        lines.iter().map(line).collect::<String>()
    )
}

fn table(rows: &[&str]) -> String {
    let mut html = "<table>".to_owned();
    for (index, row) in rows.iter().enumerate().filter(|(index, _)| *index != 1) {
        let tag = if index == 0 { "th" } else { "td" };
        let cells = row.trim_matches('|').split(" | ");
        let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", inline(cell.trim())));
        let _ = write!(html, "<tr>{}</tr>", cells.collect::<String>());
    }
    html + "</table>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Code, strong and weak emphasis, links; in code nothing else is looked for.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let html = parts.map(|(index, part)| {
        if index % 2 == 1 {
            return format!("<code>{}</code>", escaped(part));
        }
        let strong = pairs(&links(&escaped(part)), "**", "strong");
        pairs(&strong, "*", "em")
    });
    html.collect()
}

fn pairs(text: &str, mark: &str, tag: &str) -> String {
    let parts = text.split(mark).enumerate();
    let html = parts.map(|(index, part)| match index % 2 {
        1 => format!("<{tag}>{part}</{tag}>"),
        _ => part.to_owned(),
    });
    html.collect()
}

/// Links to other steps lead to them; to what is not on the page, none does.
fn links(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some((before, (words, target, after))) = next_link(rest) {
        html += before;
        match target.strip_suffix(".md").filter(|it| !it.contains('/')) {
            Some(step) => {
                let _ = write!(html, "<a href=\"#{step}\">{words}</a>");
            }
            None => html += words,
        }
        rest = after;
    }
    html + rest
}

fn next_link(text: &str) -> Option<(&str, (&str, &str, &str))> {
    let (before, from) = text.split_once('[')?;
    let (words, from) = from.split_once("](")?;
    let (target, after) = from.split_once(')')?;
    Some((before, (words, target, after)))
}

#[cfg(test)]
mod tests {
    use super::{Part, whole};

    #[test]
    fn what_the_pages_use_becomes_html() {
        let text = "# 1. A\n\n![x](1.svg)\n\n**Not** `a < *b*`: [next](2-cable.md), [far](../lab.md).\n\n\
                    | a | b |\n|---|---|\n| [c](2-cable.md) | d |\n\n1. one\n   more\n2. two\n\n\
                    ```console\n# ip <link\nlo\n```\n";
        let html = whole(&[Part {
            name: "1-a",
            text,
            drawing: "<svg/>\n",
        }]);
        for part in [
            "<h1>1. A</h1>",
            "<svg/>",
            "<p><strong>Not</strong> <code>a &lt; *b*</code>: <a href=\"#2-cable\">next</a>, far.</p>",
            "<tr><td><a href=\"#2-cable\">c</a></td><td>d</td></tr>",
            "<ol><li>one more</li><li>two</li></ol>",
            "<pre><b># ip &lt;link</b>\nlo\n</pre>",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
    }
}
