//! The one developer tool: `cargo xtask <command>`.

mod bench;
mod build;
mod ci;
mod console;
mod distro;
mod lab;
mod machine;
mod package;
mod setup;
mod soak;
mod steps;
mod test;
mod toolchain;
mod tutorial;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use console::Console;
use setup::Unmet;

/// Sets up, builds, tests and shows overlay.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    /// Show the output of the programs that are run, instead of keeping it in log files
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the build, the lab and the tests need
    Setup,
    /// Build the agent for release and print where it is
    Build(build::Args),
    /// Raise, check and take down networks of namespaces on this machine
    Lab(lab::Args),
    /// Draw the pictures of docs/tutorial, and make one page for a browser of it
    Tutorial,
    /// Run all tests: of units, of the programs in the kernel, and end to end (root)
    Test(test::Args),
    /// Let traffic run between two nodes while all about it changes, and report what was lost (root)
    Soak(soak::Args),
    /// Measure overlay beside kernel VXLAN and others, in one run (root)
    Bench(bench::Args),
    /// Build a Debian package, and try what becomes of it on a machine (root)
    Package(package::Args),
    /// Go from a bare Debian to a lab that is up, as a newcomer does it (root)
    Distro(distro::Args),
    /// Run tests on Debian's kernels in virtual machines
    Vm(vm::Args),
    /// Check formatting, lints and dependencies, then run all tests, and some on Debian's kernels
    Ci,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console {
        verbose: cli.verbose,
    };
    let result = match cli.command {
        Task::Setup => setup::run_for_tests(console),
        Task::Build(args) => build::run(console, &args),
        Task::Lab(args) => lab::run(args),
        Task::Tutorial => tutorial::run(console),
        Task::Test(args) => test::run(console, &args),
        Task::Soak(args) => soak::run(console, &args),
        Task::Bench(args) => bench::run(console, &args),
        Task::Package(args) => package::run(console, &args),
        Task::Distro(args) => distro::run(console, &args),
        Task::Vm(args) => vm::run(console, &args),
        Task::Ci => ci::run(console),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Unmet>() { 2 } else { 1 })
        }
    }
}
