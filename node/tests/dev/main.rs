//! `tollgate dev` through its front door: the real binary, real processes, real sockets. One behaviour per file.

mod client;
mod run;

mod cluster_quota;
mod cluster_survives;
mod one_node;
