//! From the objects of a table to what it does.
//!
//! What is read is rendered again and compared with what was listed: so anything in the table
//! that we would not have put there shows, without knowing every way to change one.

use std::{borrow::Cow, collections::BTreeSet};

use ipnet::IpNet;
use nftables::{
    expr::{Expression, NamedExpression, Prefix},
    schema::{NfListObject, NfObject, Nftables, Rule, Set},
    stmt::{Counter, Match, Operator, Statement},
};
use overlay_core::{
    model::{IfName, Name},
    objects::{Filter, FilterRules, Masquerade},
};

use super::{
    itself,
    ownership::mark,
    rules::{ISOLATED, TOGETHER, render},
};

/// The rules of a table of the instance.
pub(super) fn understand(table: &str, instance: &Name, found: &Nftables<'_>) -> Filter {
    let objects = objects(found);
    let rules = read(&objects);
    if consists_of(objects, table, &rules, Some(mark(table, instance))) {
        Filter::Rules(rules)
    } else {
        Filter::Altered
    }
}

/// Whether a table has no mark and otherwise just what we make: versions before 0.2 made none.
pub(super) fn is_of_earlier(table: &str, found: &Nftables<'_>) -> bool {
    let objects = objects(found);
    let rules = read(&objects);
    rules != FilterRules::default() && consists_of(objects, table, &rules, None)
}

fn objects<'a, 'b>(found: &'a Nftables<'b>) -> Vec<&'a NfListObject<'b>> {
    let objects = found.objects.iter().filter_map(|object| match object {
        NfObject::ListObject(NfListObject::MetainfoObject(_)) | NfObject::CmdObject(_) => None,
        NfObject::ListObject(object) => Some(object),
    });
    objects.collect()
}

/// Whether these are the table, what makes it follow the rules, the mark, and nothing else.
fn consists_of<'a>(
    objects: Vec<&NfListObject<'_>>,
    table: &'a str,
    rules: &FilterRules,
    mark: Option<NfListObject<'a>>,
) -> bool {
    let mut ours = vec![itself(table)];
    ours.extend(mark);
    ours.extend(render(table, rules));
    match (essence(objects), essence(ours.iter().collect())) {
        (Some(found), Some(ours)) => found == ours,
        _ => false,
    }
}

fn read(objects: &[&NfListObject<'_>]) -> FilterRules {
    let mut rules = FilterRules::default();
    for object in objects {
        match object {
            NfListObject::Set(set) if set.name == ISOLATED => {
                rules.isolated = elements(set).filter_map(device).collect();
            }
            NfListObject::Set(set) if set.name == TOGETHER => {
                rules.together = elements(set).filter_map(pair).collect();
            }
            NfListObject::Rule(rule) => rules.masqueraded.extend(masquerade(rule)),
            _ => {}
        }
    }
    rules
}

fn elements<'a, 'b>(set: &'a Set<'b>) -> impl Iterator<Item = &'a Expression<'b>> {
    set.elem.iter().flat_map(|elements| elements.iter())
}

fn text<'a>(expression: &'a Expression<'_>) -> Option<&'a str> {
    match expression {
        Expression::String(text) => Some(text),
        _ => None,
    }
}

fn device(expression: &Expression<'_>) -> Option<IfName> {
    text(expression)?.parse().ok()
}

fn pair(expression: &Expression<'_>) -> Option<(IfName, IfName)> {
    match expression {
        Expression::Named(NamedExpression::Concat(parts)) => match parts.as_slice() {
            [from, to] => Some((device(from)?, device(to)?)),
            _ => None,
        },
        _ => None,
    }
}

fn prefix(expression: &Expression<'_>) -> Option<IpNet> {
    match expression {
        Expression::Named(NamedExpression::Prefix(Prefix { addr, len })) => {
            IpNet::new(text(addr)?.parse().ok()?, u8::try_from(*len).ok()?).ok()
        }
        _ => None,
    }
}

/// The packets that a rule masquerades; `None` for another rule.
fn masquerade(rule: &Rule<'_>) -> Option<Masquerade> {
    let (mut subnet, mut cidr) = (None, None);
    let mut inside = BTreeSet::new();
    for statement in rule.expr.iter() {
        let Statement::Match(Match { op, right, .. }) = statement else {
            continue;
        };
        match (op, prefix(right)) {
            (Operator::EQ, Some(net)) => subnet = Some(net),
            (_, Some(net)) => cidr = Some(net),
            (_, None) => inside.extend(device(right)),
        }
    }
    Some(Masquerade {
        subnet: subnet?,
        cidr: cidr?,
        inside,
    })
}

/// The objects without what the kernel adds, each as text, in an order of their own.
fn essence(objects: Vec<&NfListObject<'_>>) -> Option<Vec<String>> {
    let mut texts = objects
        .into_iter()
        .map(|object| serde_json::to_string(&bare(object.clone())))
        .collect::<Result<Vec<_>, _>>()
        .ok()?;
    texts.sort();
    Some(texts)
}

/// Without handles and counts, with elements in an order of their own.
fn bare(mut object: NfListObject<'_>) -> NfListObject<'_> {
    match &mut object {
        NfListObject::Table(table) => table.handle = None,
        NfListObject::Chain(chain) => chain.handle = None,
        NfListObject::Set(set) => {
            set.handle = None;
            if let Some(elements) = &mut set.elem {
                elements
                    .to_mut()
                    .sort_by_cached_key(|element| format!("{element:?}"));
            }
        }
        NfListObject::Rule(rule) => {
            rule.handle = None;
            let statements: Vec<_> = rule.expr.iter().cloned().map(without_count).collect();
            rule.expr = Cow::Owned(statements);
        }
        _ => {}
    }
    object
}

fn without_count(statement: Statement<'_>) -> Statement<'_> {
    match statement {
        Statement::Counter(Counter::Anonymous(_)) => Statement::Counter(Counter::Anonymous(None)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use nftables::{
        batch::Batch,
        schema::{NfListObject, NfObject, Nftables},
    };
    use overlay_core::{
        model::Name,
        objects::{Filter, FilterRules, Masquerade},
    };

    use super::{
        super::{itself, ownership::mark, rules::render},
        is_of_earlier, understand,
    };

    const TABLE: &str = "overlay-n1";

    fn instance() -> Name {
        "n1".parse().unwrap()
    }

    fn rules() -> FilterRules {
        let name = |text: &str| text.parse().unwrap();
        FilterRules {
            isolated: ["ovlbr1", "ovl1", "ovlbr2"].map(name).into(),
            together: [
                (name("ovlbr1"), name("ovl1")),
                (name("ovlbr2"), name("ovlbr2")),
            ]
            .into(),
            masqueraded: ["10.244.1.0/24", "fd00:1::/64"]
                .map(|subnet| Masquerade {
                    subnet: subnet.parse().unwrap(),
                    cidr: "10.244.0.0/16".parse().unwrap(),
                    inside: [name("ovlbr1")].into(),
                })
                .into(),
        }
    }

    fn listed(rules: &FilterRules) -> Nftables<'static> {
        let mut batch = Batch::new();
        let all = [itself(TABLE), mark(TABLE, &instance())];
        for object in all.into_iter().chain(render(TABLE, rules)) {
            batch.add_obj(object);
        }
        let text = serde_json::to_string(&batch.to_nftables()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn rules_come_back_as_they_went() {
        let rules = rules();
        let found = understand(TABLE, &instance(), &listed(&rules));
        assert_eq!(found, Filter::Rules(rules));
    }

    #[test]
    fn of_tables_without_a_mark_only_those_are_known_that_we_made() {
        let listed = listed(&rules());
        assert!(!is_of_earlier(TABLE, &listed), "it has a mark");
        // It is the second object.
        let mut unmarked = listed.clone();
        unmarked.objects.to_mut().remove(1);
        assert!(is_of_earlier(TABLE, &unmarked));
        for left_out in 0..unmarked.objects.len() {
            let mut less = unmarked.clone();
            let object = less.objects.to_mut().remove(left_out);
            // With one rule less to masquerade, it is still like one of ours.
            let is_rule = matches!(object, NfObject::ListObject(NfListObject::Rule(_)));
            assert!(
                is_rule || !is_of_earlier(TABLE, &less),
                "without object {left_out}"
            );
        }
        let mut empty = unmarked.clone();
        empty.objects.to_mut().truncate(1);
        assert!(!is_of_earlier(TABLE, &empty), "an empty one is anybody's");
    }

    #[test]
    fn a_table_with_anything_else_in_it_is_altered() {
        let listed = listed(&rules());
        for left_out in 0..listed.objects.len() {
            let mut less = listed.clone();
            less.objects.to_mut().remove(left_out);
            let found = understand(TABLE, &instance(), &less);
            assert_ne!(found, Filter::Rules(rules()), "without object {left_out}");
            let mut more = listed.clone();
            let again = more.objects[left_out].clone();
            more.objects.to_mut().push(again);
            let found = understand(TABLE, &instance(), &more);
            assert_ne!(found, Filter::Rules(rules()), "twice object {left_out}");
        }
    }
}
