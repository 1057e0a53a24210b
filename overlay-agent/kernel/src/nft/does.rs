//! The effect of a rule, or of an element of a map, on the packets that it matches.

use super::dump::{ELEMENTS, attribute, attributes, name};

/// `NFTA_EXPR_…` of `linux/netfilter/nf_tables.h`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_META_DREG`, `NFTA_PAYLOAD_DREG`, `NFTA_CT_DREG`, `NFTA_EXTHDR_DREG`
const INTO: u16 = 1;
/// `NFTA_IMMEDIATE_DATA`
const IMMEDIATE: u16 = 2;
/// `NFTA_SET_ELEM_DATA`
const OF_ELEMENT: u16 = 2;
/// `NFTA_LOOKUP_SET`, `NFTA_LOOKUP_DREG`; of a verdict map this is `NFT_REG_VERDICT`.
const SET: u16 = 1;
const OF_MAP: u16 = 3;
const VERDICT_REGISTER: [u8; 4] = [0; 4];
/// `NFTA_DATA_VERDICT`
const VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`
const CODE: u16 = 1;
const CHAIN: u16 = 2;
/// `NF_ACCEPT`, and `NFT_CONTINUE`, `NFT_BREAK`, `NFT_RETURN`.
const PASSES: [i32; 4] = [1, -1, -2, -5];
/// `NFT_JUMP`, `NFT_GOTO`
const LEADS: [i32; 2] = [-3, -4];
/// `NFTA_TARGET_NAME`
const TARGET: u16 = 1;

/// An effect, as far as it can be told from the rule or element alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Does {
    /// It may drop, mark or queue packets; so may anything that is not understood.
    pub acts: bool,
    /// It may translate their addresses.
    pub translates: bool,
    /// Chains that it jumps or goes to.
    pub leads_to: Vec<String>,
    /// The verdict map that it looks into.
    pub(super) asks: Option<String>,
}

impl Does {
    /// The effect of something unknown.
    pub(super) fn anything() -> Self {
        Self {
            acts: true,
            ..Self::default()
        }
    }

    /// Adds another effect.
    pub(super) fn and(&mut self, other: &Self) {
        self.acts |= other.acts;
        self.translates |= other.translates;
        self.leads_to.extend_from_slice(&other.leads_to);
    }

    fn verdict(&mut self, data: &[u8]) {
        let Some(verdict) = attribute(data, VERDICT) else {
            // A value for the next expression.
            return;
        };
        let code = attribute(verdict, CODE).and_then(|code| code.try_into().ok());
        match (code.map(i32::from_be_bytes), name(verdict, CHAIN)) {
            (Some(code), _) if PASSES.contains(&code) => {}
            (Some(code), Some(chain)) if LEADS.contains(&code) => {
                self.leads_to.push(chain.to_owned());
            }
            _ => self.acts = true,
        }
    }

    fn expression(&mut self, kind: &str, data: &[u8]) {
        match kind {
            // Without a register to load into, they write from one.
            "meta" | "payload" | "ct" | "exthdr" => self.acts |= attribute(data, INTO).is_none(),
            "cmp" | "bitwise" | "range" | "match" | "counter" | "byteorder" | "limit" | "quota"
            | "connlimit" | "numgen" | "hash" | "fib" | "rt" | "socket" | "osf" | "xfrm"
            | "log" | "last" => {}
            "lookup" => {
                if attribute(data, OF_MAP) == Some(&VERDICT_REGISTER) {
                    self.asks = name(data, SET).map(str::to_owned);
                }
            }
            "immediate" => self.verdict(attribute(data, IMMEDIATE).unwrap_or_default()),
            "nat" | "masq" | "redir" => self.translates = true,
            "target" => match name(data, TARGET) {
                Some("SNAT" | "DNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP") => {
                    self.translates = true;
                }
                Some("LOG" | "NFLOG") => {}
                _ => self.acts = true,
            },
            _ => self.acts = true,
        }
    }
}

/// The effect of a rule with these expressions.
pub(super) fn of_rule(expressions: &[u8]) -> Does {
    let mut does = Does::default();
    for (_, expression) in attributes(expressions) {
        let data = attribute(expression, DATA).unwrap_or_default();
        does.expression(name(expression, NAME).unwrap_or_default(), data);
    }
    does
}

/// The effect of elements that come or go, by the attributes of the message. Elements without a verdict
/// may be the addresses that a rule drops.
pub(super) fn of_elements(message: &[u8]) -> Does {
    let Some(elements) = attribute(message, ELEMENTS) else {
        return Does::anything();
    };
    let mut does = Does::default();
    for (_, element) in attributes(elements) {
        match attribute(element, OF_ELEMENT) {
            Some(data) if attribute(data, VERDICT).is_some() => does.verdict(data),
            _ => does.acts = true,
        }
    }
    does
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::dump::{terminated, tests::all};

    fn expression(kind: &str, data: &[(u16, &[u8])]) -> Vec<u8> {
        all(&[(NAME, &terminated(kind)), (DATA, &all(data))])
    }

    fn verdict(code: i32, chain: Option<&str>) -> Vec<u8> {
        let (code, chain) = (code.to_be_bytes(), chain.map(terminated));
        let chain = chain.as_ref().map(|chain| (CHAIN, chain.as_slice()));
        let parts: Vec<_> = [(CODE, code.as_slice())].into_iter().chain(chain).collect();
        all(&[(VERDICT, &all(&parts))])
    }

    fn immediate(code: i32, chain: Option<&str>) -> Vec<u8> {
        expression("immediate", &[(IMMEDIATE, &verdict(code, chain))])
    }

    fn rule(expressions: &[Vec<u8>]) -> Does {
        let listed: Vec<(u16, &[u8])> = expressions.iter().map(|one| (1, &one[..])).collect();
        of_rule(&all(&listed))
    }

    #[test]
    fn a_rule_does_what_its_last_expressions_say() {
        let compare = || expression("cmp", &[]);
        let nothing = Does::default();
        let translates = Does {
            translates: true,
            ..Does::default()
        };
        let leads = Does {
            leads_to: vec!["pods".to_owned()],
            ..Does::default()
        };
        let target = |name: &str| expression("target", &[(TARGET, &terminated(name))]);
        let mark = [0, 0, 0, 3];
        for (last, expected) in [
            // NF_ACCEPT, NFT_RETURN, NFT_JUMP, NFT_GOTO, NF_DROP, and NF_QUEUE to the queue 7.
            (immediate(1, None), nothing.clone()),
            (immediate(-5, None), nothing.clone()),
            (immediate(-3, Some("pods")), leads.clone()),
            (immediate(-4, Some("pods")), leads),
            (immediate(0, None), Does::anything()),
            (immediate(0x0007_0003, None), Does::anything()),
            (expression("counter", &[]), nothing.clone()),
            (expression("masq", &[]), translates.clone()),
            (target("DNAT"), translates),
            (target("REJECT"), Does::anything()),
            (target("MARK"), Does::anything()),
            (expression("reject", &[]), Does::anything()),
            // A mark that is set, and one that is asked for.
            (expression("meta", &[(2, &mark)]), Does::anything()),
            (expression("meta", &[(INTO, &mark), (2, &mark)]), nothing),
            (expression("of tomorrow", &[]), Does::anything()),
        ] {
            assert_eq!(rule(&[compare(), last.clone()]), expected, "{last:?}");
        }
        let map = terminated("__map7");
        let asks = expression("lookup", &[(SET, &map), (OF_MAP, &VERDICT_REGISTER)]);
        assert_eq!(rule(&[asks]).asks.as_deref(), Some("__map7"));
        // What is looked up to translate to is no verdict.
        let translates = expression("lookup", &[(SET, &map), (OF_MAP, &[0, 0, 0, 1])]);
        assert_eq!(rule(&[translates]).asks, None);
    }

    #[test]
    fn elements_do_what_their_verdicts_say() {
        let elements = |datas: &[Option<Vec<u8>>]| {
            let each = datas.iter().map(|data| {
                let key = [10, 244, 2, 9];
                let data = data.as_ref().map(|data| (OF_ELEMENT, data.as_slice()));
                let parts: Vec<_> = [(1, key.as_slice())].into_iter().chain(data).collect();
                all(&parts)
            });
            let each: Vec<Vec<u8>> = each.collect();
            let listed: Vec<(u16, &[u8])> = each.iter().map(|one| (1, &one[..])).collect();
            of_elements(&all(&[(ELEMENTS, &all(&listed))]))
        };
        let leads = elements(&[
            Some(verdict(-4, Some("one"))),
            Some(verdict(-3, Some("two"))),
        ]);
        assert_eq!(leads.leads_to, ["one", "two"]);
        assert!(!leads.acts);
        let refuses = [Some(verdict(-4, Some("one"))), Some(verdict(0, None))];
        assert!(elements(&refuses).acts);
        // A set's, and those of a map of values.
        assert!(elements(&[None]).acts);
        let value = all(&[(1, &[10, 96, 0, 1])]);
        assert!(elements(&[Some(value)]).acts);
        assert!(!elements(&[]).acts);
        assert_eq!(of_elements(&[]), Does::anything());
    }
}
