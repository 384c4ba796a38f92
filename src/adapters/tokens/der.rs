//! As much of DER (X.690) as private keys need: integers in sequences.

use zeroize::Zeroizing;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The eight numbers of an RSA key in PKCS#8: n, e, d, p, q, dp, dq, qi.
pub(super) fn rsa_numbers(pkcs8: &[u8]) -> Option<[&[u8]; 8]> {
    let (info, _) = element(SEQUENCE, pkcs8)?;
    let (_version, info) = element(INTEGER, info)?;
    let (_algorithm, info) = element(SEQUENCE, info)?;
    let (key, _) = element(OCTETS, info)?;
    let (mut key, _) = element(SEQUENCE, key)?;
    (_, key) = element(INTEGER, key)?;
    let mut numbers = [&[][..]; 8];
    for number in &mut numbers {
        let (bytes, rest) = element(INTEGER, key)?;
        // A leading zero keeps the number positive and is no part of it.
        *number = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        key = rest;
    }
    Some(numbers)
}

/// The same numbers as an RSA key in PKCS#1 (RFC 8017 §A.1.2).
pub(super) fn rsa_key(numbers: &[Zeroizing<Vec<u8>>; 8]) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(written(INTEGER, &[0]));
    for number in numbers {
        let positive = number.first().is_none_or(|first| first & 0x80 != 0);
        let mut bytes = Zeroizing::new(if positive { vec![0] } else { Vec::new() });
        bytes.extend_from_slice(number);
        body.extend(written(INTEGER, &bytes));
    }
    Zeroizing::new(written(SEQUENCE, &body))
}

/// An Ed25519 seed in PKCS#8 (RFC 8410 §7).
pub(super) fn ed25519_key(seed: &[u8]) -> Zeroizing<Vec<u8>> {
    const OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
    let body = [written(INTEGER, &[0]), written(SEQUENCE, &OID), written(OCTETS, &written(OCTETS, seed))].concat();
    Zeroizing::new(written(SEQUENCE, &body))
}

/// The contents of the first element, which has this tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length)).flatten()
}

fn written(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let [.., high, low] = length.to_be_bytes();
    let mut bytes = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    bytes.extend_from_slice(contents);
    bytes
}
