use super::*;

#[test]
fn answers_are_judged() {
    let bad = |why: &str| Verdict::Bad(why.to_owned());
    let refused = || Err("http://a: connection refused (os error 111)".to_owned());
    assert_eq!(judge(Ok(200)), Verdict::Good);
    assert_eq!(judge(Ok(503)), Verdict::NotReady);
    assert_eq!(judge(Ok(500)), bad("/health answered 500"));
    assert_eq!(judge(refused()), Verdict::Refused);
    assert_eq!(judge(Err("timed out".to_owned())), bad("timed out"));
    let other_path: Vec<u16> = (100..600).filter(|status| needs_other_path(*status)).collect();
    assert_eq!(other_path, [401, 403, 404, 405]);
    for (status, is_good) in [(200, true), (401, true), (403, true), (404, false), (500, false), (503, false)] {
        assert_eq!(judge_models(Ok(status)) == Verdict::Good, is_good, "{status}");
    }
    assert_eq!(judge_models(refused()), Verdict::Refused);
}

/// Each line: what a probe finds, and what changes. The replica is up as the lines before say.
#[test]
fn one_good_probe_brings_a_replica_in_and_two_bad_ones_take_it_out() {
    let bad = || Verdict::Bad("slow".to_owned());
    let down = |why: &str| Transition::Down(why.to_owned());
    let not_ready = "/health answered 503: it is starting, or its engine is dead";
    let story = [
        (Verdict::Refused, down("connection refused")),
        (Verdict::Refused, Transition::Same),
        (Verdict::NotReady, down(not_ready)),
        (Verdict::Good, Transition::Up { is_new: true }),
        (Verdict::Good, Transition::Same),
        (bad(), Transition::Same),
        (Verdict::Good, Transition::Same),
        (bad(), Transition::Same),
        (bad(), down("slow")),
        // It was slow, not gone: its cache is what it was.
        (Verdict::Good, Transition::Up { is_new: false }),
        (Verdict::NotReady, Transition::Same),
        (Verdict::NotReady, down(not_ready)),
        (Verdict::Good, Transition::Up { is_new: true }),
        (Verdict::Refused, down("connection refused")),
        (Verdict::Good, Transition::Up { is_new: true }),
    ];
    let mut health = Health::default();
    let mut is_up = false;
    for (at, (verdict, answer)) in story.into_iter().enumerate() {
        let transition = health.transition(verdict, is_up);
        assert_eq!(transition, answer, "line {at}");
        match transition {
            Transition::Up { .. } => is_up = true,
            Transition::Down(_) => is_up = false,
            Transition::Same => {}
        }
    }
}
