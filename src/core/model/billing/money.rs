//! Amounts of money as text.
//!
//! The provider counts in smallest units. How many of them make a unit is the currency's business (ISO 4217, from a
//! maintained table), with the exceptions of the provider; the sign is the one readers of American English expect.

use iso_currency::Currency;
use rust_decimal::Decimal;

/// A price as buyers read it, e.g. `$1,234.56`; the code when there is no amount (contract `billing-stripe.md` §7).
pub fn format_price(unit_amount: Option<i64>, currency: &str) -> String {
    let code = currency.to_uppercase();
    let Some(amount) = unit_amount else { return code };
    let amount = Decimal::new(amount, digits(&code));
    if !is_code(&code) {
        return format!("{amount} {code}");
    }
    let sign = sign(&code).unwrap_or(&code);
    // What ends in a letter would run into the digits.
    let gap = if sign.ends_with(|c: char| c.is_alphabetic()) { "\u{a0}" } else { "" };
    let minus = if amount.is_sign_negative() { "-" } else { "" };
    format!("{minus}{sign}{gap}{}", grouped(&amount.abs().to_string()))
}

/// An amount as ledger entries tell it, e.g. `USD 9.99` (BS-D08); `UNKNOWN` without a currency.
pub fn spell_amount(amount: i64, currency: Option<&str>) -> String {
    let code = currency.map_or_else(|| "UNKNOWN".to_owned(), str::to_uppercase);
    format!("{code} {}", Decimal::new(amount, digits(&code)))
}

/// Commas between thousands.
fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let mut text = String::with_capacity(number.len() + whole.len() / 3);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// Decimals of the provider's amounts. Where it differs from ISO 4217: the ariary is counted whole, the Icelandic
/// króna and the Ugandan shilling in hundredths although they have none.
fn digits(code: &str) -> u32 {
    match code {
        "MGA" => 0,
        "ISK" | "UGX" => 2,
        _ => match Currency::from_code(code).and_then(Currency::exponent) {
            Some(digits @ (0 | 3)) => u32::from(digits),
            _ => 2,
        },
    }
}

fn is_code(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase())
}

/// Signs American English writes instead of the code (CLDR 48, locale `en`). Tables of currencies know local signs,
/// under which a dozen dollars look alike.
fn sign(code: &str) -> Option<&'static str> {
    Some(match code {
        "USD" => "$",
        "AUD" => "A$",
        "BRL" => "R$",
        "CAD" => "CA$",
        "CNY" => "CN¥",
        "EUR" => "€",
        "GBP" => "£",
        "HKD" => "HK$",
        "ILS" => "₪",
        "INR" => "₹",
        "JPY" => "¥",
        "KRW" => "₩",
        "MXN" => "MX$",
        "NZD" => "NZ$",
        "PHP" => "₱",
        "TWD" => "NT$",
        "VND" => "₫",
        "XAF" => "FCFA",
        "XCD" => "EC$",
        "XOF" => "F\u{202f}CFA",
        "XPF" => "CFPF",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_row_of_the_price_fixture() {
        let fixture: Value =
            serde_json::from_str(include_str!("../../../../tests/fixtures/price-format.json")).unwrap();
        let rows = ["special", "currencies"].into_iter().flat_map(|part| fixture[part].as_array().unwrap());
        let mut judged = 0;
        for row in rows {
            let (amount, currency) = (row["unitAmount"].as_i64(), row["currency"].as_str().unwrap());
            assert_eq!(format_price(amount, currency), row["target"].as_str().unwrap(), "{currency}");
            if let Some(expected) = row["stripeMinorDigits"].as_u64() {
                assert_eq!(u64::from(digits(&currency.to_uppercase())), expected, "{currency}");
            }
            judged += 1;
        }
        assert!(judged >= 145, "{judged}");
    }

    #[test]
    fn ledger_texts_have_the_currencys_decimals() {
        assert_eq!(spell_amount(999, Some("usd")), "USD 9.99");
        assert_eq!(spell_amount(1_800, Some("jpy")), "JPY 1800");
        assert_eq!(spell_amount(1_800, Some("kwd")), "KWD 1.800");
        assert_eq!(spell_amount(300, None), "UNKNOWN 3.00");
    }
}
