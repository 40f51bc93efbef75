use super::*;

fn prompt(blocks: &[u8]) -> PrefixHashes {
    let text: Vec<u8> = blocks.iter().flat_map(|block| [*block; BLOCK_BYTES]).collect();
    PrefixHashes::of("model", "", &text)
}

#[test]
fn a_chain_depends_on_everything_before_it() {
    let (ab, ac, bb) = (prompt(b"ab"), prompt(b"ac"), prompt(b"bb"));
    assert_eq!((ab.blocks(), ab.0[0]), (2, ac.0[0]));
    assert_ne!(ab.0[1], ac.0[1]);
    assert_ne!(ab.0[1], bb.0[1]);
    let same = [b'a'; BLOCK_BYTES];
    for (model, salt) in [("other", ""), ("model", "salt"), ("mode", "l")] {
        assert_ne!(PrefixHashes::of(model, salt, &same), PrefixHashes::of("model", "", &same), "{model} {salt}");
    }
}

#[test]
fn only_whole_blocks_count_and_not_without_end() {
    let table = [
        // Bytes, blocks of the longest prefix, prefixes.
        (0, 0, 0),
        (255, 0, 0),
        (256, 1, 1),
        (511, 1, 1),
        (512, 2, 2),
        (32 * 256, 32, 32),
        (39 * 256, 32, 32),
        (40 * 256, 40, 33),
        (256 * 256, 256, 60),
        (220 * 1024, 864, 79),
        (10_000_000, 2048, 116),
    ];
    for (bytes, blocks, prefixes) in table {
        let hashes = PrefixHashes::of("", "", &vec![0; bytes]);
        assert_eq!((hashes.blocks(), hashes.0.len()), (blocks, prefixes), "{bytes} bytes");
        assert_eq!(hashes.0.iter().map(|step| step.blocks).sum::<u16>(), blocks, "{bytes} bytes");
    }
}

#[test]
fn long_prompts_are_matched_to_an_eighth_of_their_length_and_weigh_what_they_are() {
    let long: Vec<u8> = (0..200).collect();
    let mut index = PrefixIndex::default();
    index.note(1, &prompt(&long));
    assert_eq!(index.slots[&1].held, 200);
    for (shared, matched) in [(200, 200), (199, 192), (100, 96), (33, 32), (20, 20)] {
        let mut other = long.clone();
        other[shared..].fill(255);
        assert_eq!(index.matches(&prompt(&other)).of(Some(1)), matched, "{shared} blocks shared");
    }
}

#[test]
fn matches_are_counted_from_the_start_without_gaps() {
    let mut index = PrefixIndex::default();
    index.note(0, &prompt(b"abc"));
    index.note(7, &prompt(b"ab"));
    index.note(127, &prompt(b"xbc"));
    let lengths = |blocks: &[u8]| {
        let matches = index.matches(&prompt(blocks));
        [0, 7, 127, 3].map(|slot| matches.of(Some(slot)))
    };
    assert_eq!(lengths(b"abcd"), [3, 2, 0, 0]);
    assert_eq!(lengths(b"ab"), [2, 2, 0, 0]);
    assert_eq!(lengths(b"axc"), [1, 1, 0, 0]);
    assert_eq!(lengths(b"xbc"), [0, 0, 3, 0]);
    assert_eq!(lengths(b""), [0, 0, 0, 0]);
    assert_eq!(index.matches(&prompt(b"abc")).of(None), 0);
}

#[test]
fn a_replica_forgets_what_its_cache_cannot_hold_tails_first() {
    let mut index = PrefixIndex::default();
    index.resize(1, 4 * BLOCK_TOKENS);
    index.note(1, &prompt(b"abc"));
    index.note(1, &prompt(b"xy"));
    let length = |index: &PrefixIndex, blocks: &[u8]| index.matches(&prompt(blocks)).of(Some(1));
    assert_eq!((length(&index, b"abc"), length(&index, b"xy")), (2, 2));
    // Using a prompt again keeps it.
    index.note(1, &prompt(b"ab"));
    index.note(1, &prompt(b"pq"));
    assert_eq!((length(&index, b"ab"), length(&index, b"xy"), length(&index, b"pq")), (2, 0, 2));
    // A smaller cache holds less.
    index.resize(1, BLOCK_TOKENS);
    assert_eq!((length(&index, b"ab"), length(&index, b"pq")), (0, 1));
    // Nothing is left behind of what was forgotten.
    index.clear(1);
    assert_eq!((index.holders.len(), index.slots.len()), (0, 0));
}
