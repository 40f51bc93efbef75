//! `tollgate dev` through its front door: the real binary, real processes, real sockets. One behaviour per file.

#[cfg(test)]
mod client;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod run;

#[cfg(test)]
mod cluster_overload;
#[cfg(test)]
mod cluster_quota;
#[cfg(test)]
mod cluster_survives;
#[cfg(test)]
mod hostile_mix;
#[cfg(test)]
mod one_node;
#[cfg(test)]
mod process;
#[cfg(test)]
mod replace_node;
#[cfg(test)]
mod replicas;
