//! How handles reach an actor that may be restarted, and how actors hear of new Views.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message};
use raft::Cluster;
use tokio::sync::oneshot;

/// The current mailbox of an actor; empty while it is being restarted.
///
/// A sender knows only `M`, which may be one of the kinds of message that the actor takes.
/// ractor's mailboxes have no bound. Each sender says why what it sends is bounded.
pub(crate) struct Mailbox<M>(Arc<ArcSwapOption<Deliver<M>>>);

/// Sends to an actor, and returns whether it is there.
type Deliver<M> = Box<dyn Fn(M) -> bool + Send + Sync>;

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Mailbox<M> {
        Mailbox(self.0.clone())
    }
}

impl<M: Message> Mailbox<M> {
    /// A mailbox that nobody reads yet.
    pub(crate) fn new() -> Mailbox<M> {
        Mailbox(Arc::default())
    }

    /// From now on `actor` reads it.
    pub(crate) fn opens<A: Message + From<M>>(&self, actor: ActorRef<A>) {
        self.0.store(Some(Arc::new(Box::new(move |message| actor.send_message(A::from(message)).is_ok()))));
    }

    /// Whether the message was delivered: not while the actor is down.
    pub(crate) fn send(&self, message: M) -> bool {
        self.0.load().as_ref().is_some_and(|deliver| deliver(message))
    }
}

/// Held by a message about a new View; the next such message is sent when it is dropped, so at most one is in the mailbox.
pub(crate) type Seen = oneshot::Sender<()>;

/// Sends `message` whenever a newer View is published. Views that come while one is being looked at become one message.
pub(crate) async fn follow_views<M: Message>(cluster: Cluster, actor: ActorRef<M>, message: fn(Seen) -> M) {
    let mut views = cluster.watch();
    // Whatever was published before this task ran is looked at, too.
    views.mark_changed();
    while views.changed().await.is_ok() {
        views.borrow_and_update();
        let (seen, handled) = oneshot::channel();
        if actor.send_message(message(seen)).is_err() {
            return;
        }
        // It ends by being dropped, so there is no value to look at.
        let _ = handled.await;
    }
}
