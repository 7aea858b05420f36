//! `top`: what guests ask for and how fast it goes, interval by interval: in a terminal as a screen, else
//! in blocks of text or as JSON.
//!
//! The process that serves may go away and come back while somebody watches: that is said, and what is
//! counted then begins anew.

mod rates;
mod screen;
mod terminal;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::ask::AskArgs;
use super::values::parse_interval;
use super::{Control, not_json, print};
use crate::control_protocol::Request;
use crate::escape::escape_json;
use crate::exit::Failure;
use crate::stats::ServiceStats;
use crate::status::ServiceStatus;
use rates::View;
use terminal::{Key, Terminal};

/// The arguments of `top`.
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// How long each interval is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// End after this many intervals
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Show each session, too
    #[arg(short, long)]
    sessions: bool,

    /// Print a block of text for each interval, in a terminal as well
    #[arg(short, long)]
    batch: bool,

    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn run(
    arguments: &TopArgs,
    control: &dyn Control,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut watch = Watch::new(arguments, control)?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    match is_terminal && !arguments.batch && !arguments.ask.json {
        true => on_screen(arguments, &mut watch, out),
        false => in_blocks(arguments, &mut watch, out),
    }
}

/// What the process said, and when.
struct Answers {
    at: Instant,
    status: ServiceStatus,
    stats: ServiceStats,
}

/// The process that is watched.
struct Watch<'a> {
    arguments: &'a TopArgs,
    control: &'a dyn Control,
    /// The last answers; `None` while it does not answer.
    last: Option<Answers>,
}

/// An interval, or why there is nothing to say about it.
type Interval = Result<View, Failure>;

impl<'a> Watch<'a> {
    /// Asks for the first time: who cannot be asked now was named wrongly.
    fn new(arguments: &'a TopArgs, control: &'a dyn Control) -> Result<Self, Failure> {
        let mut watch = Self {
            arguments,
            control,
            last: None,
        };
        watch.last = Some(watch.ask()?);
        Ok(watch)
    }

    fn ask(&self) -> Result<Answers, Failure> {
        let ask = &self.arguments.ask;
        Ok(Answers {
            stats: ask.ask(self.control, &Request::Stats { disk: None })?,
            at: Instant::now(),
            status: ask.ask(self.control, &Request::Status { disk: None })?,
        })
    }

    /// What was counted since the last time.
    fn next(&mut self) -> Interval {
        let before = self.last.take();
        let now = self.ask()?;
        let earlier = before.as_ref().map(|before| &before.stats);
        let elapsed = before
            .as_ref()
            .map_or(Duration::ZERO, |before| now.at - before.at);
        let view = View::of(&now.status, &now.stats, earlier, elapsed);
        self.last = Some(now);
        Ok(view)
    }
}

/// How many intervals are left; without a bound they never end.
fn is_done(arguments: &TopArgs, shown: u64) -> bool {
    arguments.count.is_some_and(|count| shown >= count)
}

fn in_blocks(
    arguments: &TopArgs,
    watch: &mut Watch<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut shown = 0;
    while !is_done(arguments, shown) {
        std::thread::sleep(arguments.interval);
        let interval = watch.next();
        let text = match arguments.ask.json {
            true => json(&interval)?,
            false => block(&interval, arguments.sessions, shown),
        };
        print(out, &text)?;
        shown += 1;
    }
    Ok(())
}

fn block(interval: &Interval, with_sessions: bool, shown: u64) -> String {
    let gap = if shown == 0 { "" } else { "\n" };
    match interval {
        Ok(view) => format!("{gap}{}", screen::render(view, with_sessions)),
        Err(failure) => format!("{gap}{}\n", no_answer(failure)),
    }
}

fn no_answer(failure: &Failure) -> String {
    format!("No answer: {failure}")
}

/// A line per interval.
fn json(interval: &Interval) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct NoAnswer {
        error: String,
    }
    let text = match interval {
        Ok(view) => serde_json::to_string(view),
        Err(failure) => serde_json::to_string(&NoAnswer {
            error: failure.to_string(),
        }),
    };
    Ok(escape_json(&text.map_err(not_json)?) + "\n")
}

fn on_screen(
    arguments: &TopArgs,
    watch: &mut Watch<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut terminal = Terminal::open(out)?;
    let mut with_sessions = arguments.sessions;
    let mut shown = 0;
    // Nothing to compare with yet, but what is wrong is there at once.
    let mut interval = watch.next();
    let mut due = Instant::now() + arguments.interval;
    loop {
        let text = match &interval {
            Ok(view) => screen::render(view, with_sessions),
            Err(failure) => no_answer(failure),
        };
        terminal.draw(&format!("{text}\n{}", screen::KEYS))?;
        match terminal.key(due.saturating_duration_since(Instant::now()))? {
            Some(Key::Quit) => return Ok(()),
            Some(Key::Sessions) => with_sessions = !with_sessions,
            Some(Key::Redraw) => {}
            None => {
                shown += 1;
                if is_done(arguments, shown) {
                    return Ok(());
                }
                interval = watch.next();
                due = Instant::now() + arguments.interval;
            }
        }
    }
}
