//! A page of the documentation as one that `man` shows: the Markdown that those pages use, which is
//! headings, paragraphs, lists, tables and blocks of code.

use std::fmt::Write as _;

/// The page from its first heading of the second level on, and what stands before it as its
/// description; see `groff_man(7)` for the requests.
pub(super) fn of_markdown(text: &str) -> String {
    let mut page = Page::default();
    page.request(".SH DESCRIPTION");
    for line in text.lines() {
        page.line(line);
    }
    page.out
}

#[derive(Default)]
struct Page {
    out: String,
    /// Within a block of code.
    is_code: bool,
    /// The names of the columns of the table that is being read.
    columns: Option<Vec<String>>,
}

impl Page {
    fn request(&mut self, request: &str) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.out, "{request}");
    }

    fn line(&mut self, line: &str) {
        if line.starts_with("```") {
            self.is_code = !self.is_code;
            self.request(if self.is_code {
                ".PP\n.RS 4\n.nf"
            } else {
                ".fi\n.RE"
            });
        } else if self.is_code {
            let code = escaped(line);
            self.request(&protected(&code));
        } else if line.starts_with('|') {
            self.row(line);
        } else {
            self.columns = None;
            self.prose(line);
        }
    }

    fn prose(&mut self, line: &str) {
        if let Some(heading) = line.strip_prefix("### ") {
            self.request(&format!(".SS {}", inline(heading)));
        } else if let Some(heading) = line.strip_prefix("## ") {
            self.request(&format!(".SH {}", inline(heading)));
        } else if line.starts_with("# ") {
            // The page has its own title.
        } else if let Some(item) = line.strip_prefix("- ") {
            self.request(&format!(".IP \\(bu 2\n{}", protected(&inline(item))));
        } else if line.is_empty() {
            self.request(".PP");
        } else {
            self.request(&protected(&inline(line.trim_start())));
        }
    }

    /// A row as a paragraph: what its first cell names, and then each column with its name.
    fn row(&mut self, line: &str) {
        let line = line.trim_matches('|').replace("\\|", "\u{0}");
        let cells = line.split('|');
        let cells: Vec<String> = cells
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect();
        let Some(columns) = &self.columns else {
            self.columns = Some(cells);
            return;
        };
        if cells
            .iter()
            .all(|cell| cell.chars().all(|c| matches!(c, '-' | ':')))
        {
            return;
        }
        let named = columns
            .iter()
            .zip(&cells)
            .filter(|(_, cell)| !cell.is_empty());
        let named =
            named.map(|(column, cell)| format!("\\fI{}:\\fR {}", inline(column), inline(cell)));
        let named: Vec<String> = named.collect();
        self.request(".PP");
        self.request(&named.join("\n.br\n"));
    }
}

/// Text with its code in bold and its links without their targets.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(number, part)| {
        if number % 2 == 1 {
            format!("\\fB{}\\fR", escaped(part))
        } else {
            emphasized(&escaped(&without_links(part).replace("**", "")))
        }
    });
    parts.collect()
}

/// `*words*` becomes italics; an asterisk among spaces is meant as it is.
fn emphasized(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('*') {
        out.push_str(before);
        let words = after.split_once('*').filter(|(words, _)| {
            !words.is_empty() && !words.starts_with(' ') && !words.ends_with(' ')
        });
        rest = if let Some((words, after)) = words {
            out += "\\fI";
            out += words;
            out += "\\fR";
            after
        } else {
            out.push('*');
            after
        };
    }
    out + rest
}

/// `[text](target)` becomes `text`; what spans code is left as it is.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(name, after)| {
            let (_, after) = after.split_once(')')?;
            Some((name, after))
        });
        let Some((name, after)) = link else { break };
        out.push_str(before);
        out.push_str(name);
        rest = after;
    }
    out + rest
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A line that begins with what would be a request.
pub(super) fn protected(line: &str) -> String {
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::of_markdown;

    #[test]
    fn headings_tables_and_code_become_requests() {
        let page = of_markdown(
            "# Title\n\nSee [the page](x.md) of `a-b`.\n\n## node.name\n\n| type | default |\n|---|---|\n\
             | name | `\"x\"` |\n\n### more\n\n- one\n\n**All** keys change *live*, 2 * 3.\n\n```toml\n.dot = 1\n```\n",
        );
        for part in [
            "See the page of \\fBa\\-b\\fR.\n",
            ".SH node.name\n",
            "\\fItype:\\fR name\n.br\n\\fIdefault:\\fR \\fB\"x\"\\fR\n",
            ".SS more\n",
            ".IP \\(bu 2\none\n",
            "All keys change \\fIlive\\fR, 2 * 3.\n",
            ".nf\n\\&.dot = 1\n.fi\n",
        ] {
            assert!(page.contains(part), "{part:?} in\n{page}");
        }
        assert!(!page.contains("Title") && !page.contains('|'), "{page}");
    }
}
