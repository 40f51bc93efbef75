use super::*;

/// Calls of the callers at the replicas `a` to `c`, one after the other: `.` is answered, `x` fails, `!` breaks.
fn outliers(story: &[(u64, char, &str)]) -> (Outliers, Instant) {
    let now = Instant::now();
    let mut outliers = Outliers::default();
    for (caller, replica, endings) in story {
        for ending in endings.chars() {
            let ending = match ending {
                '.' => Ending::Answered,
                'x' => Ending::Failed,
                _ => Ending::Lost,
            };
            outliers.note(id(*replica), CallerId(*caller), ending, now);
        }
    }
    (outliers, now)
}

fn id(replica: char) -> ReplicaId {
    ReplicaId(u64::from(u32::from(replica)))
}

/// What happens, calls as (caller, replica, endings), and the replicas that are outliers.
type Case<'a> = (&'a str, &'a [(u64, char, &'a str)], &'a str);

#[tokio::test(start_paused = true)]
async fn a_replica_is_judged_relative_to_its_peers_and_across_callers() {
    let table: &[Case<'_>] = &[
        ("nothing happens", &[], ""),
        ("all is well", &[(1, 'a', "..."), (2, 'b', "...")], ""),
        ("one caller's poison fails everywhere", &[(1, 'a', "xxxxxxxxx"), (1, 'b', "xxxxxxxxx")], ""),
        ("one caller's poison fails at the only replica", &[(1, 'a', "xxxxxxxxx"), (2, 'a', "..")], ""),
        ("one caller's poison hits one replica only", &[(1, 'a', "xxxxxxxxx"), (1, 'b', "...")], ""),
        ("one caller's poison breaks connections", &[(1, 'a', "!!!!!!"), (1, 'b', "!!!!!!"), (2, 'a', ".")], ""),
        (
            "two callers' poison fails everywhere",
            &[(1, 'a', "xxx"), (1, 'b', "xxx"), (2, 'a', "xx"), (2, 'b', "xx")],
            "",
        ),
        ("two callers only know the one replica", &[(1, 'a', "xxxx"), (2, 'a', "xxxx"), (3, 'b', "....")], ""),
        ("one replica fails everybody", &[(1, 'a', "xx"), (1, 'b', ".."), (2, 'a', "x"), (2, 'c', ".")], "a"),
        ("too few failures", &[(1, 'a', "x"), (1, 'b', ".."), (2, 'a', "x"), (2, 'c', ".")], ""),
        ("most calls there succeed", &[(1, 'a', "x..."), (1, 'b', ".."), (2, 'a', "xx...."), (2, 'c', ".")], ""),
        ("half of them fail", &[(1, 'a', "x.x."), (1, 'b', "...."), (2, 'a', ".x"), (2, 'c', ".")], "a"),
        ("peers are nearly as bad", &[(1, 'a', "xxx"), (1, 'b', "xx."), (2, 'a', "xxx"), (2, 'b', "xx.")], ""),
        (
            "as many callers are well there as are not",
            &[(1, 'a', "xx"), (1, 'b', "."), (2, 'a', "xx"), (2, 'b', "."), (3, 'a', "."), (4, 'a', ".")],
            "",
        ),
        ("connections break for the only caller", &[(1, 'a', "!!!"), (1, 'b', "...")], "a"),
        ("two breaks are no pattern", &[(1, 'a', "!!"), (1, 'b', "...")], ""),
        ("connections break for one of two callers", &[(1, 'a', "!!!!"), (1, 'b', "...."), (2, 'a', ".")], ""),
        (
            "two replicas fail everybody",
            &[(1, 'a', "xx"), (1, 'b', "xx"), (1, 'c', "......"), (2, 'a', "xx"), (2, 'b', "xx"), (2, 'c', "......")],
            "ab",
        ),
    ];
    for (case, story, expected) in table {
        let (outliers, now) = outliers(story);
        let found: String = "abc".chars().filter(|replica| outliers.judge(id(*replica), now).is_some()).collect();
        assert_eq!(found, *expected, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_fade_and_are_forgotten_when_a_replica_gets_calls_again() {
    let (mut outliers, now) = outliers(&[(1, 'a', "xx"), (1, 'b', ".."), (2, 'a', "xx"), (2, 'c', "..")]);
    assert!(outliers.judge(id('a'), now).is_some());
    assert!(outliers.is_telling(id('a'), CallerId(1), now) && !outliers.is_telling(id('a'), CallerId(3), now));
    assert_eq!(outliers.judge(id('a'), now + Duration::from_secs(10)), None);
    outliers.forget(id('a'));
    assert_eq!(outliers.judge(id('a'), now), None);
}

#[tokio::test(start_paused = true)]
async fn a_caller_shuns_a_replica_that_fails_its_calls_and_no_others_for_a_while() {
    let (outliers, now) =
        outliers(&[(1, 'a', "xxx"), (1, 'b', "..."), (2, 'a', "xxx"), (2, 'b', "xxx"), (3, 'a', "xx")]);
    let shunned = |caller, now| outliers.is_shunned(id('a'), CallerId(caller), now);
    assert_eq!([1, 2, 3, 4].map(|caller| shunned(caller, now)), [true, false, false, false]);
    assert!(!shunned(1, now + Duration::from_secs(3)), "one call tries it again");
    assert!(!outliers.is_quiet(now) && outliers.is_quiet(now + Duration::from_secs(61)));
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_bound_are_forgotten() {
    let mut outliers = Outliers::default();
    for caller in 0..5000 {
        outliers.note(id('a'), CallerId(caller), Ending::Answered, Instant::now());
    }
    assert_eq!(outliers.callers.len(), CALLERS_MAX.get());
}
