//! One node's actors over a real cluster: mostly of one node, on accelerated time.

#[cfg(test)]
mod access;
#[cfg(test)]
mod killed;
mod ledger;
mod limits;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod support;
