//! Rotation: of what is kept in a file of ours, by one who makes new secrets, often enough to make sense.

use super::{Around, Problems, period};
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::rotation::{HookSpec, Rotation, RotationSpec, Rotator, SIDES, beside};
use crate::config::{Credential, Lookup};
use std::path::Path;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// How the secret of a credential is replaced, if it is.
pub(super) fn resolve(
    written: Option<&RotationSpec>,
    (path, file_dir): (&str, &Path),
    lookup: &[Lookup],
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Rotation> {
    let (written, at) = (written?, join(path, "rotation"));
    let second = Duration::from_secs(1);
    let every = written.every.as_ref().map(|every| every.0);
    if every.is_some_and(|every| !(60 * second..=1000 * DAY).contains(&every)) {
        problems.add(join(&at, "every"), Problem::OutOfBounds("a length of time from 1m to 1000d"));
    }
    let place = join(&at, "overlap");
    let bounds = (place.as_str(), "a length of time from 1s to 90d");
    let overlap = period(&written.overlap, 3600 * second, second..=90 * DAY, bounds, problems);
    if every.is_some_and(|every| every <= overlap) {
        problems.add(place, Problem::OverlapTooLong);
    }
    let place = join(&at, "timeout");
    let bounds = (place.as_str(), "a length of time from 1s to 15m");
    let timeout = period(&written.timeout, 60 * second, second..=900 * second, bounds, problems);
    let by = rotator(written, (&at, file_dir), around, problems);
    let file = match lookup {
        [Lookup::File(file)] => Some(file.clone()),
        // What is wrong with the source is told already.
        [] => None,
        _ => {
            problems.add(at, Problem::RotationElsewhere);
            None
        }
    };
    Some(Rotation { file: file?, every, overlap, timeout, by: by? })
}

fn rotator(
    written: &RotationSpec,
    (at, file_dir): (&str, &Path),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Rotator> {
    let env = || written.env.iter().map(|variable| variable.0.clone()).collect();
    match (&written.command, &written.hook) {
        (Some(argv), None) => {
            let plain = argv.iter().all(|word| !word.contains('\0'));
            if !plain || !argv.first().is_some_and(|program| program.starts_with('/')) {
                problems.add(join(at, "command"), Problem::RotatorRelative);
                return None;
            }
            Some(Rotator::Command { argv: argv.clone(), env: env() })
        }
        (None, Some(hook)) => {
            if !written.env.is_empty() {
                problems.add(join(at, "env"), Problem::HookWithEnvironment);
            }
            Some(resolve_hook(hook, (&join(at, "hook"), file_dir), around, problems))
        }
        (None, None) if around.is_incomplete(at) => None,
        _ => {
            problems.add(at, Problem::OneRotator);
            None
        }
    }
}

fn resolve_hook(
    hook: &HookSpec,
    (at, file_dir): (&str, &Path),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Rotator {
    let token = hook.token.as_ref().map(|token| token.at(file_dir));
    let ca_file = hook.ca_file.as_ref().map(|file| around.path(file, &join(at, "ca_file"), problems));
    Rotator::Hook { url: hook.url.0.clone(), token, ca_file }
}

/// One file, one rotation; and nobody reads what one of them writes beside it.
pub(super) fn check_together(credentials: &[Credential], problems: &mut Problems) {
    for (index, credential) in credentials.iter().enumerate() {
        let Some(rotation) = &credential.rotation else { continue };
        let at = join(&join("credentials", credential.name.as_str()), "rotation");
        let rotates = |other: &&Credential| other.rotation.as_ref().is_some_and(|other| other.file == rotation.file);
        if let Some(other) = credentials.iter().take(index).find(rotates) {
            problems.add(at.clone(), Problem::RotatedTwice(other.name.clone()));
        }
        let sides: Vec<_> = SIDES.iter().map(|side| beside(&rotation.file, side)).collect();
        let reads = |other: &&Credential| {
            other.lookup.iter().filter_map(Lookup::file).any(|file| sides.iter().any(|side| side == file))
        };
        if let Some(other) = credentials.iter().find(reads) {
            problems.add(at, Problem::RotatesOver(other.name.clone()));
        }
    }
}
