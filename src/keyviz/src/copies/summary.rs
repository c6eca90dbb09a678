//! What a holder notes of a copy beside its columns.

use keyviz_types::Incarnation;

const VERSION: u8 = 1;

/// What is noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    /// The latest life of the node.
    pub incarnation: Incarnation,
    /// Everything that it counted before is there, but what was dropped for space.
    pub complete_to_ms: u64,
    /// End of the newest column that was dropped for space here.
    pub forgotten_before_ms: u64,
    /// Since when it is no member, if it is none.
    pub left_ms: Option<u64>,
}

impl Default for Summary {
    /// Of a node of which nothing is known.
    fn default() -> Self {
        let incarnation = Incarnation(0);
        Summary { incarnation, complete_to_ms: 0, forgotten_before_ms: 0, left_ms: None }
    }
}

impl Summary {
    /// The key of the record, after the keys of all columns.
    pub const KEY: &[u8] = b"s";

    /// Version u8, four numbers u64 BE (the last 0: it is a member), CRC-32 of all before u32 LE.
    pub fn encode(&self) -> Vec<u8> {
        let left_ms = self.left_ms.unwrap_or(0);
        let numbers = [self.incarnation.0, self.complete_to_ms, self.forgotten_before_ms, left_ms];
        let mut record = vec![VERSION];
        numbers.iter().for_each(|number| record.extend(number.to_be_bytes()));
        let checksum = crc32fast::hash(&record);
        record.extend(checksum.to_le_bytes());
        record
    }

    /// Reads [`Summary::encode`]; `None` if it is damaged or of another version.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let (content, checksum) = record.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (&VERSION, numbers) = content.split_first()? else { return None };
        let (numbers, []) = numbers.as_chunks::<8>() else { return None };
        let [incarnation, complete_to_ms, forgotten_before_ms, left_ms] = numbers else {
            return None;
        };
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        Some(Summary {
            incarnation: Incarnation(number(incarnation)),
            complete_to_ms: number(complete_to_ms),
            forgotten_before_ms: number(forgotten_before_ms),
            left_ms: Some(number(left_ms)).filter(|left_ms| *left_ms > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_partiality_a_damaged_summary_promises_nothing() {
        let summary = Summary {
            incarnation: Incarnation(3),
            complete_to_ms: 1_800_000_000_000,
            forgotten_before_ms: 5,
            left_ms: Some(1_800_000_000_001),
        };
        let record = summary.encode();
        assert_eq!(Summary::decode(&record), Some(summary));
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert_eq!(Summary::decode(&damaged), None, "byte {at}");
            assert_eq!(Summary::decode(&record[..at]), None);
        }
    }
}
