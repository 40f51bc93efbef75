//! Why a port ends a connection, a stream or a request by itself. Each reason has a label in `tollgate_connections_cut_total`.

/// Why a port cut something off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// The TLS handshake took too long.
    Handshake,
    /// A request's head took too long.
    Head,
    /// A request's body took too long, or came in too small pieces.
    Body,
    /// The client takes no bytes.
    Write,
    /// The client takes nothing of one HTTP/2 stream.
    Stream,
    /// No request for too long.
    Idle,
    /// Too many HTTP/2 frames that carry nothing.
    Frames,
    /// A new connection needed the place.
    Room,
    /// No connection could make room: the request was answered 503.
    Full,
}

impl Cut {
    /// The label of the metric.
    pub(super) fn label(self) -> &'static str {
        match self {
            Cut::Handshake => "tls_handshake",
            Cut::Head => "head",
            Cut::Body => "body",
            Cut::Write => "write",
            Cut::Stream => "stream",
            Cut::Idle => "idle",
            Cut::Frames => "frames",
            Cut::Room => "room",
            Cut::Full => "full",
        }
    }
}
