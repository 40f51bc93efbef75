use super::*;

#[test]
fn keys_have_two_parts_in_base_62() {
    let table = [
        ("sk-oai-abc_XYZ", true),
        ("sk-oai-0_0", true),
        ("sk-oai-_XYZ", false),
        ("sk-oai-abc_", false),
        ("sk-oai-abc", false),
        ("sk-oai-abc_X_Z", false),
        ("sk-oai-abc_X-Z", false),
        ("sk-oai-abc_X Z", false),
        ("sk-oai-abc_\u{e9}", false),
        ("sk-abc_XYZ", false),
        ("", false),
    ];
    for (key, is_well_formed) in table {
        assert_eq!(key_hash(key).is_some(), is_well_formed, "{key}");
    }
}

#[test]
fn hashes_are_those_of_the_contract() {
    let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // sha256sum of "abc\0XYZ" and of "token".
    let of_key = "5f3203f0981d97027f95704ba4b6d51616af895ba8478a4c133a36c226c12232";
    assert_eq!(hex(key_hash("sk-oai-abc_XYZ").unwrap()), of_key);
    assert_eq!(hex(token_hash("token")), "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0");
}
