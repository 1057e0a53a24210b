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

use super::rules::{ISOLATED, TOGETHER, render};
use crate::{
    model::IfName,
    objects::{Filter, FilterRules, Masquerade},
};

pub(super) fn understand(table: &str, found: &Nftables<'_>) -> Filter {
    let objects: Vec<&NfListObject<'_>> = found
        .objects
        .iter()
        .filter_map(|object| match object {
            NfObject::ListObject(NfListObject::MetainfoObject(_)) | NfObject::CmdObject(_) => None,
            NfObject::ListObject(object) => Some(object),
        })
        .collect();
    let rules = read(&objects);
    let rendered = render(table, &rules);
    match (essence(objects), essence(rendered.iter().collect())) {
        (Some(found), Some(ours)) if found == ours => Filter::Rules(rules),
        _ => Filter::Altered,
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

/// What a rule masquerades; `None` for one that does not.
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
    use nftables::{batch::Batch, schema::Nftables};

    use super::{super::rules::render, understand};
    use crate::objects::{Filter, FilterRules, Masquerade};

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
        for object in render("overlay-n1", rules) {
            batch.add_obj(object);
        }
        let text = serde_json::to_string(&batch.to_nftables()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn rules_come_back_as_they_went() {
        let rules = rules();
        let found = understand("overlay-n1", &listed(&rules));
        assert_eq!(found, Filter::Rules(rules));
    }

    #[test]
    fn a_table_with_anything_else_in_it_is_altered() {
        let listed = listed(&rules());
        for left_out in 0..listed.objects.len() {
            let mut less = listed.clone();
            less.objects.to_mut().remove(left_out);
            let found = understand("overlay-n1", &less);
            assert_ne!(found, Filter::Rules(rules()), "without object {left_out}");
            let mut more = listed.clone();
            let again = more.objects[left_out].clone();
            more.objects.to_mut().push(again);
            let found = understand("overlay-n1", &more);
            assert_ne!(found, Filter::Rules(rules()), "twice object {left_out}");
        }
    }
}
