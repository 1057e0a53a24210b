//! The page: all that was measured, in one file without anything from elsewhere.

use std::fmt::{Arguments, Write as _};

use super::{
    chart,
    figure::{ratio, spread, with_unit},
    svg::{escape, shapes, style},
    table::unreliable,
};
use crate::bench::{
    goals::{self, Goal},
    metric::Group,
    results::{Context, Results},
    subject::Subject,
};

const STYLE: &str = "\
*{box-sizing:border-box}\
body{margin:0;background:<paper>;color:<ink>;line-height:1.55;\
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\
main{max-width:1240px;margin:0 auto;padding:48px 28px 80px}\
h1{font-size:34px;line-height:1.2;margin:0 0 6px;letter-spacing:-.02em}\
h2{font-size:22px;margin:56px 0 4px;letter-spacing:-.01em}\
p{margin:0 0 18px;max-width:76ch}.lead,.about,small{color:<muted>}\
.lead{font-size:17px}\
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:18px}\
.panel{background:<panel>;border-radius:12px;padding:20px 22px}\
.panel svg{display:block;width:100%;height:auto;overflow:visible}\
.panel svg .cut{stroke:<panel>}\
.goals{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:14px;margin-top:18px}\
.goal-card{background:<panel>;border-radius:12px;padding:14px 18px;\
border-left:4px solid <grid>}\
.goal-card.met{border-color:<good>}.goal-card.missed{border-color:<bad>}\
.goal-card b{display:block;font-size:25px;line-height:1.3;font-variant-numeric:tabular-nums}\
.met b{color:<good>}.missed b{color:<bad>}\
.goal-card span{display:block;font-size:14px}.goal-card small{font-size:13px}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin-top:14px}\
th,td{padding:7px 14px 7px 0;text-align:right;border-bottom:1px solid <grid>;\
white-space:nowrap;vertical-align:top}\
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:230px}\
thead th{font-weight:600;border-bottom:2px solid <grid>}\
td small{display:block;font-size:12px}tr.group td{padding-top:22px;font-weight:600;border:0}\
td.ours{color:<ours>;font-weight:600}td.ours small{font-weight:400}\
.facts td{text-align:left}.facts td:first-child{color:<muted>;padding-right:32px;min-width:0}\
pre{background:<panel>;border-radius:8px;padding:14px 18px;overflow-x:auto;font-size:14px}\
@media print{main{padding:0}.panel,.goal-card{break-inside:avoid}}";

/// The page as one text.
pub(super) fn page(context: &Context, results: &Results) -> String {
    let mut page = Page(String::new());
    page.add(format_args!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>overlay beside kernel VXLAN, {date}</title>\n\
         <style>{style}{shapes}</style>\n</head>\n<body>\n<main>\n",
        date = escape(day(context)),
        style = style(STYLE),
        shapes = shapes(),
    ));
    head(&mut page, context);
    if let Some(warning) = unreliable(context) {
        page.add(format_args!(
            "<p class=\"about\">{}</p>\n",
            escape(&warning)
        ));
    }
    goal_cards(&mut page, &goals::judge(results));
    for group in Group::ALL {
        panels(&mut page, group, results);
    }
    table(&mut page, results);
    failures(&mut page, results);
    facts(&mut page, context);
    page.add(format_args!("</main>\n</body>\n</html>\n"));
    page.0
}

struct Page(String);

impl Page {
    fn add(&mut self, part: Arguments<'_>) {
        // Writing to a string cannot fail.
        let _written = self.0.write_fmt(part);
    }
}

fn day(context: &Context) -> &str {
    context.date.split('T').next().unwrap_or(&context.date)
}

fn head(page: &mut Page, context: &Context) {
    let machine = &context.machine;
    let rounds = match (context.interrupted, context.complete_rounds) {
        (false, 1) => "one round".to_owned(),
        (false, rounds) => format!("{rounds} rounds"),
        (true, rounds) => format!("interrupted after {rounds} rounds"),
    };
    page.add(format_args!(
        "<h1>overlay beside kernel VXLAN</h1>\n\
         <p class=\"lead\">{}, {}, {} CPUs, kernel {}. Measured side by side in one run, {rounds}, \
         interleaved. Bars are medians, whiskers reach from the lowest to the highest round.</p>\n",
        escape(day(context)),
        escape(&machine.cpu),
        machine.cpus,
        escape(&machine.kernel),
    ));
    page.add(format_args!("<table class=\"facts\">\n"));
    for subject in &context.options.subjects {
        fact(page, subject.name(), subject.about());
    }
    page.add(format_args!("</table>\n"));
}

fn goal_cards(page: &mut Page, goals: &[Goal]) {
    let judged = goals.iter().filter(|goal| goal.met.is_some()).count();
    if judged == 0 {
        return;
    }
    let met = goals.iter().filter(|goal| goal.met == Some(true)).count();
    page.add(format_args!(
        "<h2>Goals</h2>\n<p class=\"about\">{met} of {judged} are met.</p>\n<div class=\"goals\">\n"
    ));
    for goal in goals.iter().filter(|goal| goal.met.is_some()) {
        let (class, mark) = match goal.met {
            Some(true) => ("met", "✓ "),
            _ => ("missed", "✗ "),
        };
        page.add(format_args!(
            "<div class=\"goal-card {class}\"><b>{mark}{}</b><span>{}</span><small>goal {}</small></div>\n",
            escape(&goal.value_text()),
            escape(&goal.text),
            escape(&goal.bound_text())
        ));
    }
    page.add(format_args!("</div>\n"));
}

fn panels(page: &mut Page, group: Group, results: &Results) {
    let panels = chart::panels(group, results);
    if panels.is_empty() {
        return;
    }
    page.add(format_args!(
        "<h2>{}</h2>\n<p class=\"about\">{}</p>\n<div class=\"panels\">\n",
        escape(group.title()),
        escape(group.about())
    ));
    for (title, drawing) in panels {
        page.add(format_args!(
            "<div class=\"panel\">{}</div>\n",
            drawing.inline(title)
        ));
    }
    page.add(format_args!("</div>\n"));
}

fn table(page: &mut Page, results: &Results) {
    let subjects: Vec<Subject> = Subject::ALL
        .iter()
        .copied()
        .filter(|&subject| {
            results
                .metrics()
                .any(|metric| results.subjects_of(metric).contains(&subject))
        })
        .collect();
    page.add(format_args!(
        "<h2>All figures</h2>\n<p class=\"about\">Median, then lowest – highest, then the ratio to \
         vxlan.</p>\n<div class=\"scroll\"><table>\n<thead><tr><th></th>"
    ));
    for subject in &subjects {
        page.add(format_args!("<th>{subject}</th>"));
    }
    page.add(format_args!("</tr></thead>\n<tbody>\n"));
    let mut group = None;
    for metric in results.metrics() {
        if group != Some(metric.group) {
            group = Some(metric.group);
            page.add(format_args!(
                "<tr class=\"group\"><td colspan=\"{}\">{}</td></tr>\n",
                subjects.len() + 1,
                escape(metric.group.title())
            ));
        }
        page.add(format_args!("<tr><td>{}</td>", escape(metric.title)));
        for &subject in &subjects {
            let Some(summary) = results.summary(subject, metric) else {
                page.add(format_args!("<td></td>"));
                continue;
            };
            let class = if subject == Subject::Overlay {
                " class=\"ours\""
            } else {
                ""
            };
            let to_vxlan = results
                .ratio(subject, metric.id, Subject::Vxlan)
                .filter(|_| subject != Subject::Vxlan)
                .map_or_else(String::new, |value| {
                    format!("<small>{}</small>", ratio(value))
                });
            page.add(format_args!(
                "<td{class}>{}<small>{}</small>{to_vxlan}</td>",
                escape(&with_unit(summary.median, metric.unit)),
                escape(&spread(summary.min, summary.max, metric.unit)),
            ));
        }
        page.add(format_args!("</tr>\n"));
    }
    page.add(format_args!("</tbody></table></div>\n"));
}

fn failures(page: &mut Page, results: &Results) {
    if results.failures.is_empty() {
        return;
    }
    page.add(format_args!(
        "<h2>Not measured</h2>\n<p class=\"about\">These failed, or did not take the path under \
         test.</p>\n<ul>\n"
    ));
    for failure in &results.failures {
        page.add(format_args!(
            "<li>round {}, {} of {}: {}</li>\n",
            failure.round,
            escape(&failure.measurement),
            failure.subject,
            escape(&failure.why)
        ));
    }
    page.add(format_args!("</ul>\n"));
}

fn facts(page: &mut Page, context: &Context) {
    let (machine, options) = (&context.machine, &context.options);
    page.add(format_args!(
        "<h2>The machine</h2>\n<div class=\"scroll\"><table class=\"facts\">\n"
    ));
    let virtualised = if machine.virtualised { ", virtual" } else { "" };
    fact(page, "Date", &context.date);
    fact(
        page,
        "CPU",
        &format!("{}, {} CPUs{virtualised}", machine.cpu, machine.cpus),
    );
    fact(page, "Memory", &format!("{} MiB", machine.memory_mib));
    fact(page, "System", &machine.system);
    fact(
        page,
        "Kernel",
        &format!("{}, clock {}", machine.kernel, machine.clock_source),
    );
    fact(page, "Agent", &machine.agent);
    if let Some(commit) = &machine.commit {
        fact(page, "Commit", commit);
    }
    fact(page, "Tools", &{
        let (iperf3, sockperf) = (&machine.iperf3, &machine.sockperf);
        let (iproute2, bpftool) = (&machine.iproute2, &machine.bpftool);
        format!("iperf3 {iperf3}; sockperf {sockperf}; {iproute2}; bpftool {bpftool}")
    });
    fact(
        page,
        "Cores",
        &format!(
            "{} for clients and senders, {} for servers and receivers",
            machine.client_core, machine.server_core
        ),
    );
    fact(page, "TCP", &context.congestion);
    fact(
        page,
        "Quiet",
        &format!(
            "{:.1} % of the CPUs’ time used by others at most, {:.1} % taken by the hypervisor",
            context.load_between * 100.0,
            context.stolen * 100.0
        ),
    );
    page.add(format_args!("</table></div>\n<h2>To repeat it</h2>\n<pre>"));
    let quick = if options.quick { " --quick" } else { "" };
    page.add(format_args!(
        "cargo xtask bench{quick} --rounds {}</pre>\n",
        options.rounds
    ));
}

fn fact(page: &mut Page, name: &str, value: &str) {
    page.add(format_args!(
        "<tr><td>{}</td><td>{}</td></tr>\n",
        escape(name),
        escape(value)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::sample;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_is_told() {
        let (context, results) = sample();
        let page = page(&context, &results);
        assert!(page.contains("Example &lt;CPU&gt; &amp; Co"));
        assert!(page.contains("&lt;b&gt;lost&lt;/b&gt;") && !page.contains("<b>lost"));
        for outside in ["src=", "href=", "url(", "@import", "http"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("<td class=\"ours\">420 kpps"));
        assert!(page.contains("cargo xtask bench --quick --rounds 3"));
    }

    #[test]
    fn every_element_that_is_opened_is_closed() {
        let (context, results) = sample();
        let page = page(&context, &results);
        for element in [
            "svg", "div", "table", "tr", "td", "text", "ul", "main", "style",
        ] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!(opened, closed, "{element}");
        }
    }
}
