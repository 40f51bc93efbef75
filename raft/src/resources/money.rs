//! Money: amounts in trillionths of the currency's unit, so that the price of a single token is exact.
//!
//! Which currency it is nobody needs to know: rates and budgets of one model are in the same.

/// Of one unit of the currency.
const UNIT: u64 = 1_000_000_000_000;
/// Digits after the point.
const DIGITS: usize = 12;
/// The largest budget: ten million units.
pub(super) const BUDGET_MAX: u64 = 10_000_000 * UNIT;
/// The highest price of a token: a thousand units.
const PRICE_MAX: u64 = 1_000 * UNIT;

/// What a token costs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Price {
    /// Of a prompt.
    pub input: u64,
    /// Of an answer.
    pub output: u64,
}

impl Price {
    /// The cost of so many tokens.
    pub fn of(self, input: u64, output: u64) -> u64 {
        self.input.saturating_mul(input).saturating_add(self.output.saturating_mul(output))
    }

    pub(super) fn is_free(self) -> bool {
        self == Price::default()
    }
}

/// `0.000002` and the like as the price of a token; `None` if it is no such number, or out of reach.
pub(super) fn parse_price(text: &str) -> Option<u64> {
    parse(text).filter(|price| *price <= PRICE_MAX)
}

/// `12`, `12.50`; `None` if it is no such number. Digits beyond a trillionth are refused, not rounded.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > DIGITS {
        return None;
    }
    let part: u64 = format!("{part:0<DIGITS$}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(UNIT)?.checked_add(part)
}

/// With two digits after the point, or as many as it takes: `12.50`, `0.000002`.
pub(super) fn written(amount: u64) -> String {
    let part = format!("{:0DIGITS$}", amount % UNIT);
    let digits = part.trim_end_matches('0').len().max(2);
    format!("{}.{}", amount / UNIT, &part[..digits])
}

/// In units of the currency.
pub(super) fn units(amount: u64) -> f64 {
    amount as f64 / UNIT as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_exactly_and_written_as_people_do() {
        let table = [
            ("12", Some(12 * UNIT), "12.00"),
            ("12.5", Some(12 * UNIT + UNIT / 2), "12.50"),
            ("0.000002", Some(2_000_000), "0.000002"),
            ("0.000000000001", Some(1), "0.000000000001"),
            ("0.0000000000001", None, ""),
            ("00.10", Some(UNIT / 10), "0.10"),
            ("1e-6", None, ""),
            ("-1", None, ""),
            ("+1", None, ""),
            (".5", None, ""),
            ("1.", None, ""),
            ("", None, ""),
            ("99999999999999999999", None, ""),
            ("18446745", None, ""),
        ];
        for (text, expected, again) in table {
            assert_eq!(parse(text), expected, "{text}");
            if let Some(amount) = expected {
                assert_eq!(written(amount), again);
            }
        }
        assert_eq!(units(parse("12.5").unwrap()), 12.5);
        assert_eq!((parse_price("1000"), parse_price("1000.1")), (Some(1000 * UNIT), None));
        let price = Price { input: 2, output: 3 };
        assert_eq!((price.of(10, 100), price.of(u64::MAX, 1)), (320, u64::MAX));
    }
}
