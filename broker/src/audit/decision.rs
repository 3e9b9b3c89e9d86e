//! What was decided: the words that stand in `decision`, all of them.

/// A word of [`super::Record::decision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum Decision {
    /// A request went on, with a credential.
    Forward,
    /// A request went on as it was.
    Pass,
    /// A client was let into a tunnel that ends here.
    Intercept,
    /// A client was let into a tunnel that nobody looks into.
    Tunnel,
    /// A request did not go on.
    Refuse,
    /// A session was made, or the first certificate authority.
    Create,
    /// The next certificate authority was made, or a secret took the place of another.
    Rotate,
    /// The secret of before was ended at its service.
    Retire,
    /// The config changed what a session may do.
    Declare,
    /// A session's access mode was set.
    Set,
    /// A session may read and write for a time.
    Elevate,
    /// That time is over.
    Revert,
    /// A session lives for as long as it is held.
    Hold,
    /// A session was ended.
    End,
    /// At a stop: every use of the workers is on record.
    Delivered,
}

impl Decision {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Decision::Forward => "forward",
            Decision::Pass => "pass",
            Decision::Intercept => "intercept",
            Decision::Tunnel => "tunnel",
            Decision::Refuse => "refuse",
            Decision::Create => "create",
            Decision::Rotate => "rotate",
            Decision::Retire => "retire",
            Decision::Declare => "declare",
            Decision::Set => "set",
            Decision::Elevate => "elevate",
            Decision::Revert => "revert",
            Decision::Hold => "hold",
            Decision::End => "end",
            Decision::Delivered => "delivered",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Kind;
    use clap::ValueEnum as _;

    #[test]
    fn what_is_asked_for_is_what_is_written() {
        for decision in Decision::value_variants() {
            assert_eq!(decision.to_possible_value().unwrap().get_name(), decision.as_str());
        }
        for kind in Kind::value_variants() {
            let written = serde_json::to_value(kind).unwrap();
            assert_eq!(written, kind.to_possible_value().unwrap().get_name());
        }
    }
}
