//! The cluster through its public door: real disks, real sockets, TLS.

#[cfg(test)]
mod catching_up;
#[cfg(test)]
mod members;
#[cfg(test)]
mod single_node;
#[cfg(test)]
mod support;
#[cfg(test)]
mod three_nodes;
#[cfg(test)]
mod trouble;
