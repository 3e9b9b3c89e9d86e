//! How often somebody was asked, and with what result: questions are counted by whoever is asked, too.

use super::Trouble;
use super::remembered::Answer;
use crate::config::{KINDS, SourceKind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// What a question was about, and what came of it: few known words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Question {
    kind: &'static str,
    result: &'static str,
}

/// Questions, by kind of source and result.
pub type Questions = Family<Question, Counter>;

/// From zero for each kind that has to be asked, so that the first is seen to be one more.
pub fn none_yet() -> Questions {
    let questions = Questions::default();
    for kind in KINDS.iter().filter(|kind| kind.is_asked) {
        drop(questions.get_or_create(&Question { kind: kind.word, result: "secret" }));
    }
    questions
}

/// What counts the questions of one kind.
#[derive(Clone, Debug)]
pub struct Meter {
    kind: &'static str,
    questions: Questions,
}

impl Meter {
    /// Counts into `questions`.
    pub fn new(kind: SourceKind, questions: Questions) -> Self {
        Self { kind: kind.word(), questions }
    }

    /// One question was answered.
    pub fn count(&self, answer: &Result<Answer, Trouble>) {
        let result = match answer {
            Ok(Answer::Secret { .. }) => "secret",
            Ok(Answer::Renewed { .. }) => "renewed",
            Ok(Answer::Absent) => "absent",
            Err(trouble) if trouble.passes() => "passing",
            Err(_) => "lasting",
        };
        self.questions.get_or_create(&Question { kind: self.kind, result }).inc();
    }
}
