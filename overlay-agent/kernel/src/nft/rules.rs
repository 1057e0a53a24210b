//! What the packet filter should do, as the objects of a table that is there.
//!
//! ```text
//! set isolated { type ifname; … }
//! set together { type ifname . ifname; … }
//! chain forward {
//!     type filter hook forward priority filter;
//!     iifname @isolated oifname @isolated iifname . oifname != @together counter drop
//! }
//! chain postrouting {
//!     type nat hook postrouting priority srcnat;
//!     ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 oifname != "ovlbr1" … counter masquerade
//! }
//! ```

use std::borrow::Cow;

use ipnet::IpNet;
use nftables::{
    expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix},
    schema::{Chain, NfListObject, Rule, Set, SetType, SetTypeValue},
    stmt::{Counter, Match, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};
use overlay_core::{
    model::IfName,
    objects::{FilterRules, Masquerade},
};

pub(super) const ISOLATED: &str = "isolated";
pub(super) const TOGETHER: &str = "together";
const FORWARD: &str = "forward";
const POSTROUTING: &str = "postrouting";
/// `filter` and `srcnat`, the places of such chains.
const FILTER_PRIORITY: i32 = 0;
const SOURCE_NAT_PRIORITY: i32 = 100;

pub(super) fn render<'a>(table: &'a str, rules: &FilterRules) -> Vec<NfListObject<'a>> {
    let mut objects = Vec::new();
    if !rules.isolated.is_empty() {
        objects.extend(isolation(table, rules));
    }
    if !rules.masqueraded.is_empty() {
        let chain = (NfChainType::NAT, NfHook::Postrouting, SOURCE_NAT_PRIORITY);
        objects.push(self::chain(table, POSTROUTING, chain));
        let statements = rules.masqueraded.iter().map(masquerade);
        objects.extend(statements.map(|statements| rule(table, POSTROUTING, statements)));
    }
    objects
}

fn isolation<'a>(table: &'a str, rules: &FilterRules) -> [NfListObject<'a>; 4] {
    let pair = Expression::Named(NamedExpression::Concat(vec![
        meta(MetaKey::Iifname),
        meta(MetaKey::Oifname),
    ]));
    let devices = rules.isolated.iter().map(name).collect();
    let pairs = rules.together.iter();
    let pairs = pairs
        .map(|(from, to)| Expression::Named(NamedExpression::Concat(vec![name(from), name(to)])))
        .collect();
    let two_names = vec![SetType::Ifname, SetType::Ifname];
    let statements = vec![
        compare(meta(MetaKey::Iifname), Operator::EQ, set_named(ISOLATED)),
        compare(meta(MetaKey::Oifname), Operator::EQ, set_named(ISOLATED)),
        compare(pair, Operator::NEQ, set_named(TOGETHER)),
        Statement::Counter(Counter::Anonymous(None)),
        Statement::Drop(None),
    ];
    [
        set(
            table,
            ISOLATED,
            SetTypeValue::Single(SetType::Ifname),
            devices,
        ),
        set(
            table,
            TOGETHER,
            SetTypeValue::Concatenated(two_names.into()),
            pairs,
        ),
        chain(
            table,
            FORWARD,
            (NfChainType::Filter, NfHook::Forward, FILTER_PRIORITY),
        ),
        rule(table, FORWARD, statements),
    ]
}

fn masquerade(rule: &Masquerade) -> Vec<Statement<'static>> {
    let field = |field| field_of(rule.subnet, field);
    let mut statements = vec![
        compare(field("saddr"), Operator::EQ, prefix(rule.subnet)),
        compare(field("daddr"), Operator::NEQ, prefix(rule.cidr)),
    ];
    let outside = rule
        .inside
        .iter()
        .map(|device| compare(meta(MetaKey::Oifname), Operator::NEQ, name(device)));
    statements.extend(outside);
    statements.push(Statement::Counter(Counter::Anonymous(None)));
    statements.push(Statement::Masquerade(None));
    statements
}

fn set<'a>(
    table: &'a str,
    name: &'a str,
    set_type: SetTypeValue<'a>,
    elements: Vec<Expression<'a>>,
) -> NfListObject<'a> {
    NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: table.into(),
        name: name.into(),
        set_type,
        elem: Some(elements.into()),
        ..Set::default()
    }))
}

fn chain<'a>(
    table: &'a str,
    name: &'a str,
    (kind, hook, priority): (NfChainType, NfHook, i32),
) -> NfListObject<'a> {
    NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: table.into(),
        name: name.into(),
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    })
}

fn rule<'a>(table: &'a str, chain: &'a str, statements: Vec<Statement<'a>>) -> NfListObject<'a> {
    NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: table.into(),
        chain: chain.into(),
        expr: statements.into(),
        ..Rule::default()
    })
}

fn compare<'a>(left: Expression<'a>, op: Operator, right: Expression<'a>) -> Statement<'a> {
    Statement::Match(Match { left, right, op })
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn set_named(name: &str) -> Expression<'static> {
    Expression::String(Cow::Owned(format!("@{name}")))
}

fn name(device: &IfName) -> Expression<'static> {
    Expression::String(Cow::Owned(device.to_string()))
}

fn field_of(net: IpNet, field: &'static str) -> Expression<'static> {
    let protocol = match net {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    };
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn prefix(net: IpNet) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(Expression::String(Cow::Owned(net.network().to_string()))),
        len: net.prefix_len().into(),
    }))
}
