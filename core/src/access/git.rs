//! git over HTTP (gitprotocol-http) and its large files (git LFS), as rules of method, path, query
//! and one member of a body.

use crate::matching::path::{Pattern, PatternError};
use crate::policy::{AccessSpec, BodyRule, OperationSpec};

/// Services that read, as repositories serve them. Each is announced by
/// `GET …/info/refs?service=NAME` and asked by a POST.
const READING: [&str; 2] = ["git-upload-pack", "git-upload-archive"];

/// The service that a push is made of.
const WRITING: &str = "git-receive-pack";

/// The rules for repositories at these paths (`/*/*`: of an owner, by its name).
///
/// Reads: clone, fetch and archive, and an LFS batch that asks for downloads. All else is a write by
/// its method: pushes, LFS batches that ask for uploads, LFS locks and verification, the WebDAV of
/// the dumb protocol. A push begins with a GET, which is therefore named: wherever it is asked, since
/// a repository may lie where no pattern expects one. What a GET reads in the dumb protocol, LFS
/// objects and lists of locks included, needs no rule.
pub fn rules(repositories: &[String]) -> Result<AccessSpec, PatternError> {
    let mut rules = AccessSpec::default();
    for repository in repositories {
        let beneath = |tail: &str| format!("{repository}/{tail}");
        // Both: a final `**` or slash would leave no room for what follows.
        Pattern::parse(repository)?;
        Pattern::parse(&beneath(WRITING))?;
        rules.reads.extend(READING.map(|service| post(beneath(service), None)));
        let downloads = BodyRule::Json { member: "operation".into(), any_of: vec!["download".into()] };
        rules.reads.push(post(beneath("info/lfs/objects/batch"), Some(downloads)));
    }
    if !repositories.is_empty() {
        let query = [("service".to_owned(), WRITING.to_owned())].into();
        rules.writes.push(OperationSpec { method: "GET".into(), query, ..post("/**".into(), None) });
    }
    Ok(rules)
}

fn post(path: String, body: Option<BodyRule>) -> OperationSpec {
    OperationSpec { method: "POST".into(), path, query: Default::default(), no_other_query: false, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Body, Operation};
    use crate::fixture::test;
    use crate::policy::AccessMode;
    use crate::refusal::Reason;
    use crate::request::Media;

    #[test]
    fn a_repository_is_read_and_not_written() {
        let repositories = ["/*/*", "/scm/*/*"].map(str::to_owned);
        let access = Access::compile(&rules(&repositories).unwrap()).unwrap();
        let check = |method: &str, target: &str, body: &'static str| {
            let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.as_bytes())));
            let media = if body.is_empty() { Media::Other } else { Media::OnJson };
            let (method, path) = (method.as_bytes(), path.as_bytes());
            let operation = Operation { method, path, query, media, ..Operation::default() };
            access.check(AccessMode::ReadOnly, operation, || Body::Whole(body.as_bytes()))
        };
        for (method, target, body, reads) in [
            // The smart protocol: clone, fetch, archive.
            ("GET", "/o/r/info/refs?service=git-upload-pack", "", true),
            ("POST", "/o/r/git-upload-pack", "", true),
            ("POST", "/o/r.git/git-upload-pack", "", true),
            ("POST", "/scm/o/r/git-upload-pack", "", true),
            ("GET", "/o/r/info/refs?service=git-upload-archive", "", true),
            ("POST", "/o/r/git-upload-archive", "", true),
            // The dumb one: files.
            ("GET", "/o/r/info/refs", "", true),
            ("GET", "/o/r/HEAD", "", true),
            ("GET", "/o/r/objects/info/packs", "", true),
            ("GET", "/o/r/objects/pack/pack-0.pack", "", true),
            // Large files.
            ("POST", "/o/r/info/lfs/objects/batch", r#"{"operation":"download"}"#, true),
            ("GET", "/o/r/info/lfs/objects/0", "", true),
            ("GET", "/o/r/info/lfs/locks", "", true),
            // A push, wherever the repository lies.
            ("GET", "/o/r/info/refs?service=git-receive-pack", "", false),
            ("HEAD", "/o/r/info/refs?service=git-receive-pack", "", false),
            ("GET", "/o/r/info/refs?service=git-upload-pack&service=git-receive-pack", "", false),
            ("GET", "/a/b/c/d/info/refs?service=git-receive-pack", "", false),
            ("GET", "/info/refs?service=GIT-receive-pack", "", false),
            ("GET", "/?service=git-receive-pack", "", false),
            ("POST", "/o/r/git-receive-pack", "", false),
            ("POST", "/o/r/git-receive-pack/", "", false),
            // WebDAV, as the dumb protocol pushes.
            ("PROPFIND", "/o/r/", "", false),
            ("LOCK", "/o/r/info/refs", "", false),
            ("PUT", "/o/r/objects/00/00", "", false),
            ("POST", "/o/r/info/lfs/objects/batch", r#"{"operation":"upload"}"#, false),
            ("POST", "/o/r/info/lfs/locks", r#"{"path":"x"}"#, false),
            ("POST", "/o/r/info/lfs/locks/verify", "{}", false),
            ("POST", "/o/r/info/lfs/locks/1/unlock", "{}", false),
            ("POST", "/o/r/info/lfs/verify", "{}", false),
            ("PUT", "/o/r/info/lfs/objects/0", "", false),
            ("POST", "/a/b/c/git-upload-pack", "", false),
            ("POST", "/git-upload-pack", "", false),
            ("PUT", "/o/r/git-upload-pack", "", false),
        ] {
            let verdict = if reads { Ok(()) } else { Err(Reason::ReadOnly) };
            assert_eq!(check(method, target, body), verdict, "{method} {target} {body}");
        }
    }

    #[test]
    fn a_repository_lies_at_a_path() {
        for repository in ["", "o/r", "/", "/*/", "/**", "/o/**", "/o*", "/o//r", "/../r"] {
            assert!(rules(&[repository.to_owned()]).is_err(), "{repository}");
        }
        assert_eq!(rules(&[]), Ok(AccessSpec::default()));
    }
}
