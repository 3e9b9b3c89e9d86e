//! A GraphQL document: the operations in it, and which of them runs.

use apollo_parser::cst::{Definition, OperationDefinition};
use apollo_parser::{Lexer, Parser, TokenKind};

/// How deep selections, lists and objects nest. Deeper is no honest query, and would need a stack
/// that a VM does not have.
const DEEPEST: usize = 100;

/// Tokens of one document, white space and comments included.
const MOST_TOKENS: usize = 20_000;

/// What an operation does (GraphQL, "Operations").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Mutation,
    Subscription,
}

impl Kind {
    pub(super) fn reads(self, subscriptions: bool) -> bool {
        match self {
            Kind::Query => true,
            Kind::Mutation => false,
            Kind::Subscription => subscriptions,
        }
    }
}

/// The operations of a document, each with its name.
pub(super) struct Document(Vec<(Option<String>, Kind)>);

impl Document {
    /// Reads a document that every server reads alike, and that holds nothing but operations and
    /// fragments.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !text.chars().all(ends_lines_as_all_do) || has_lone_return(text) || has_broken_string(text) {
            return None;
        }
        let tree = Parser::new(text).recursion_limit(DEEPEST).token_limit(MOST_TOKENS).parse();
        if tree.errors().next().is_some() {
            return None;
        }
        let mut operations = Vec::new();
        for definition in tree.document().definitions() {
            match definition {
                Definition::OperationDefinition(operation) => operations.push(read(&operation)?),
                Definition::FragmentDefinition(_) => {}
                // Types have no place beside what is run.
                _ => return None,
            }
        }
        Some(Self(operations))
    }

    /// The one operation that runs if this one is asked for (GraphQL, "Executing Requests"); none if
    /// servers could differ in which that is.
    pub(super) fn runs(&self, name: Option<&str>) -> Option<Kind> {
        let names = || self.0.iter().map(|(name, _)| name.as_deref());
        let twice = names().enumerate().any(|(index, name)| names().take(index).any(|before| before == name));
        let nameless = self.0.len() > 1 && names().any(|name| name.is_none());
        if twice || nameless {
            return None;
        }
        match (name, self.0.as_slice()) {
            (None, [(_, kind)]) => Some(*kind),
            (None, _) => None,
            (Some(_), operations) => {
                operations.iter().find(|(known, _)| known.as_deref() == name).map(|(_, kind)| *kind)
            }
        }
    }
}

fn read(operation: &OperationDefinition) -> Option<(Option<String>, Kind)> {
    let name = operation.name().map(|name| name.text().to_string());
    let kind = match operation.operation_type() {
        // The short form: a selection alone.
        None => Kind::Query,
        Some(kind) if kind.query_token().is_some() => Kind::Query,
        Some(kind) if kind.mutation_token().is_some() => Kind::Mutation,
        Some(kind) if kind.subscription_token().is_some() => Kind::Subscription,
        Some(_) => return None,
    };
    operation.selection_set().map(|_| (name, kind))
}

/// A comment ends with its line, so all must agree on where lines end: not so where other
/// characters end some. A byte order mark is white space to some and an error to others.
fn ends_lines_as_all_do(letter: char) -> bool {
    match letter {
        '\t' | '\n' | '\r' => true,
        '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => false,
        other => !other.is_control(),
    }
}

/// Whether a carriage return stands without its line feed.
fn has_lone_return(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'\r', bytes).any(|at| bytes.get(at + 1) != Some(&b'\n'))
}

/// Whether a string that is no block goes on over the end of its line. The parser lets the end of a
/// line be a string's first character, where a string has none.
fn has_broken_string(text: &str) -> bool {
    let is_broken = |data: &str| !data.starts_with("\"\"\"") && data.contains('\n');
    let tokens = Lexer::new(text).with_limit(MOST_TOKENS).flatten();
    tokens.into_iter().any(|token| token.kind() == TokenKind::StringValue && is_broken(token.data()))
}
