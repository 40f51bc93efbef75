//! One node's actors over a real single-node cluster, on accelerated time.

#[cfg(test)]
mod access;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod support;
