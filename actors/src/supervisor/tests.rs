use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[tokio::test(start_paused = true)]
async fn pauses_double_until_the_parent_gives_up() {
    let mut restarts = Restarts::default();
    let now = Instant::now();
    let pauses: Vec<Option<u128>> = (0..9).map(|_| restarts.next(now).map(|pause| pause.as_millis())).collect();
    assert_eq!(pauses[..8], [50, 100, 200, 400, 800, 1600, 3200, 6400].map(Some));
    assert_eq!(pauses[8], None);
    // A minute of good work is forgiven.
    assert_eq!(restarts.next(now + Duration::from_secs(61)), Some(PAUSE_MIN));
}

/// Fails as told: a panic, an error, something fatal.
struct Troubled;

#[derive(Clone)]
struct Trouble {
    kind: &'static str,
    starts: Arc<AtomicU32>,
}

impl Actor for Troubled {
    type Msg = ();
    type State = Trouble;
    type Arguments = Trouble;

    async fn pre_start(&self, myself: ActorRef<()>, trouble: Trouble) -> Result<Trouble, ActorProcessingErr> {
        trouble.starts.fetch_add(1, Ordering::SeqCst);
        myself.send_message(())?;
        Ok(trouble)
    }

    async fn handle(&self, _: ActorRef<()>, (): (), trouble: &mut Trouble) -> Result<(), ActorProcessingErr> {
        match (trouble.kind, trouble.starts.load(Ordering::SeqCst)) {
            ("fatal", _) => Err(Fatal("something else runs as this node".to_owned()).into()),
            ("panics once", 1) => panic!("boom"),
            ("always fails", _) => Err("no luck".into()),
            _ => Ok(()),
        }
    }
}

async fn supervised(kind: &'static str) -> (ActorRef<Message>, watch::Receiver<Option<String>>, Arc<AtomicU32>) {
    let starts = Arc::new(AtomicU32::new(0));
    let (failed, has_failed) = watch::channel(None);
    let children = vec![child("troubled", || Troubled, Trouble { kind, starts: starts.clone() })];
    let (supervisor, _) = Supervisor::spawn(None, Supervisor, Plan { children, failed }).await.unwrap();
    (supervisor, has_failed, starts)
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_panics_is_started_again() {
    let (_supervisor, failed, starts) = supervised("panics once").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((starts.load(Ordering::SeqCst), failed.borrow().is_none()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_keeps_failing_ends_the_node() {
    let (_supervisor, mut failed, starts) = supervised("always fails").await;
    let reason = failed.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(reason.unwrap(), "actor `troubled`: no luck");
    assert_eq!(starts.load(Ordering::SeqCst), 9);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_failure_ends_the_node_at_once() {
    let (_supervisor, mut failed, starts) = supervised("fatal").await;
    failed.wait_for(Option::is_some).await.unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 1);
}
