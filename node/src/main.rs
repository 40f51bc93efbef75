//! `tollgate`: arguments, configuration, a node, until a signal. Everything is in the library.

fn main() -> std::process::ExitCode {
    node::cli::main()
}
