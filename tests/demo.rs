//! `make demo`: the main job with real parts, step by step, each step checked.
//!
//! It dials nothing but loopback, uses no secret but its own two, and ends everything it started.

#[path = "demo/screen.rs"]
mod screen;
#[path = "demo/stage.rs"]
mod stage;
#[path = "demo/story.rs"]
mod story;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use screen::{Failed, Screen};
use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a program that Ctrl-C ended, by custom of shells (128 + SIGINT).
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let (begun, screen) = (Instant::now(), Arc::new(Screen::of_terminal()));
    screen.title("Attaché: an agent calls two APIs and never holds a key.");
    let stage = Arc::new(Stage::build().await);

    let mut telling = tokio::spawn(story::tell(Arc::clone(&stage), Arc::clone(&screen)));
    let told = tokio::select! {
        told = &mut telling => Some(told.unwrap_or_else(|error| Err(Failed::because(error.to_string())))),
        () = interrupted() => None,
    };
    // An interrupted story must not go on while its stage is taken down.
    telling.abort();
    if let Some(Err(failed)) = &told {
        screen.failed(failed);
        screen.logs(&stage.logs());
    }
    stage.end().await;
    match told {
        Some(Ok(())) => {
            screen.title(&format!("All checked, in {:.1} s.", begun.elapsed().as_secs_f32()));
            ExitCode::SUCCESS
        }
        Some(Err(_)) => ExitCode::FAILURE,
        None => {
            screen.title("Interrupted; everything that was started has ended.");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Ready at Ctrl-C, SIGTERM, or the end of the terminal.
async fn interrupted() {
    let on = |kind| signal(kind).expect("signals can be handled");
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt()), on(SignalKind::terminate()));
    let mut hangup = on(SignalKind::hangup());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
