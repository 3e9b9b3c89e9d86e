//! Against somebody who answers as told, in a time that passes only when waited for.

use super::*;
use std::collections::VecDeque;

/// Answers in turn what it was told to; at the end, nothing.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Result<Answer, Trouble>>,
    held: Vec<Option<String>>,
    given_back: Vec<String>,
    left: usize,
    slow: Duration,
}

impl Told {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn source(answers: impl IntoIterator<Item = Result<Answer, Trouble>>) -> (Self, Remembered<Self>) {
        let told = Self::default();
        told.script().answers.extend(answers);
        let source = Remembered::new(told.clone(), Pace { refresh: Duration::from_secs(600), ..Pace::default() });
        (told, source)
    }

    fn asked(&self) -> usize {
        self.script().held.len()
    }
}

impl Remote for Told {
    fn ask(&self, held: Option<String>) -> Later<'_, Result<Answer, Trouble>> {
        Box::pin(async {
            let slow = self.script().slow;
            tokio::time::sleep(slow).await;
            let mut script = self.script();
            script.held.push(held);
            script.answers.pop_front().unwrap_or(Ok(Answer::Absent))
        })
    }

    fn give_back(&self, lease: String) -> Later<'_, Result<(), Trouble>> {
        self.script().given_back.push(lease);
        Box::pin(async { Ok(()) })
    }

    fn leave(&self) -> Later<'_, ()> {
        let mut script = self.script();
        script.left = script.given_back.len();
        Box::pin(async {})
    }

    fn place(&self) -> String {
        "somebody".into()
    }
}

fn secret(text: &str) -> Result<Answer, Trouble> {
    Ok(Answer::Secret { secret: Secret::new(text), valid: None, lease: None })
}

fn leased(text: &str, seconds: u64, lease: &str) -> Result<Answer, Trouble> {
    let (secret, valid) = (Secret::new(text), Some(Duration::from_secs(seconds)));
    Ok(Answer::Secret { secret, valid, lease: Some(lease.into()) })
}

fn down() -> Result<Answer, Trouble> {
    Err(Trouble::passing("it is down", "start it"))
}

async fn read(source: &Remembered<Told>) -> Result<String, String> {
    match source.read().await {
        Ok(found) => Ok(found.map_or("nothing".into(), |found| found.secret.expose().to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks as the leases do, over and over, for so long.
async fn pass(source: &Remembered<Told>, seconds: u64) {
    for _ in 0..seconds * 2 {
        source.mark();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_ask_at_once_and_one_question_goes_out() {
    let (told, source) = Told::source([secret("one"), secret("two")]);
    told.script().slow = Duration::from_secs(1);
    let source = Arc::new(source);
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let source = Arc::clone(&source);
            tokio::spawn(async move { read(&source).await })
        })
        .collect();
    for one in asking {
        assert_eq!(one.await.unwrap().unwrap(), "one");
    }
    assert_eq!(told.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_asked_for_anew_ahead_of_its_end_and_nobody_waits_for_it() {
    let (told, source) = Told::source([leased("one", 90, "l1"), leased("two", 90, "l2")]);
    assert_eq!(read(&source).await.unwrap(), "one");
    let before = source.mark();
    pass(&source, 50).await;
    assert_eq!((told.asked(), source.mark()), (1, before), "two thirds of its life are 60 s, less a tenth at most");
    pass(&source, 12).await;
    assert_ne!(source.mark(), before);
    told.script().slow = Duration::from_secs(3600);
    assert_eq!(read(&source).await.unwrap(), "two", "at once");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_and_the_one_that_was_replaced_is_given_back_later() {
    let renewed = Ok(Answer::Renewed { valid: Duration::from_secs(90) });
    let (told, source) = Told::source([leased("one", 90, "l1"), renewed, leased("two", 90, "l2")]);
    assert_eq!(read(&source).await.unwrap(), "one");
    pass(&source, 62).await;
    assert_eq!(read(&source).await.unwrap(), "one");
    pass(&source, 62).await;
    assert_eq!(read(&source).await.unwrap(), "two");
    let l1 = || Some("l1".to_owned());
    assert_eq!(told.script().held, [None, l1(), l1()]);
    assert!(told.script().given_back.is_empty() || told.asked() > 3, "requests with it are on their way");
    tokio::time::sleep(OVERLAP + Duration::from_secs(1)).await;
    assert_eq!(told.script().given_back, ["l1"]);
    source.close().await;
    assert_eq!(told.script().given_back, ["l1", "l2"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_it_forgotten_wants_another_and_not_the_old_one_renewed() {
    let (told, source) = Told::source([leased("one", 90, "l1"), leased("two", 90, "l2")]);
    read(&source).await.unwrap();
    source.forget();
    assert_eq!(read(&source).await.unwrap(), "two");
    assert_eq!(told.script().held, [None, None]);
    tokio::time::sleep(OVERLAP + Duration::from_secs(1)).await;
    assert_eq!(told.script().given_back, ["l1"]);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_all_leases_are_given_back_once_and_then_nobody_asks_any_longer() {
    let (told, source) = Told::source([leased("one", 90, "l1"), leased("two", 90, "l2")]);
    read(&source).await.unwrap();
    source.forget();
    read(&source).await.unwrap();
    source.close().await;
    {
        let script = told.script();
        assert_eq!((&script.given_back[..], script.left), (&["l2".to_owned(), "l1".to_owned()][..], 2));
    }
    tokio::time::sleep(OVERLAP + Duration::from_secs(1)).await;
    assert_eq!(told.script().given_back.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_asked_for_at_the_end_is_given_back_too_and_is_the_last() {
    let (told, source) = Told::source([leased("one", 90, "l1"), leased("two", 90, "l2"), leased("three", 90, "l3")]);
    read(&source).await.unwrap();
    told.script().slow = Duration::from_secs(5);
    let source = Arc::new(source);
    source.forget();
    let asking = source.clone();
    let asking = tokio::spawn(async move { drop(read(&asking).await) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    source.close().await;
    asking.await.unwrap();
    assert_eq!(told.script().given_back, ["l1", "l2"]);
    source.forget();
    assert!(read(&source).await.is_err());
    assert_eq!(told.asked(), 2, "nobody asks after the end");
}

#[tokio::test(start_paused = true)]
async fn failures_have_a_pace_of_their_own() {
    let (told, source) = Told::source([down(), down(), down(), down(), down(), secret("one")]);
    assert_eq!(read(&source).await.unwrap_err(), "somebody: it is down");
    let mut gaps = Vec::new();
    while told.asked() < 6 {
        let (asked, began) = (told.asked(), Instant::now());
        while told.asked() == asked {
            source.mark();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        gaps.push(began.elapsed().as_secs_f64());
    }
    // 1, 2, 4, 8, 16 seconds, less a fifth at most, and what the looking adds.
    for (gap, wanted) in gaps.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0]) {
        assert!((wanted * 0.8..wanted + 0.3).contains(gap), "{gaps:?}");
    }
    assert_eq!(read(&source).await.unwrap(), "one");
    let most = Pace::default().retry_after(u32::MAX);
    assert!(most <= Duration::from_secs(60) && most >= Duration::from_secs(48), "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_leaves_what_was_found_until_it_is_too_old() {
    let (told, source) = Told::source([secret("one")]);
    told.script().answers.extend((0..10_000).map(|_| down()));
    read(&source).await.unwrap();
    pass(&source, 700).await;
    assert_eq!(read(&source).await.unwrap(), "one");
    assert_eq!(source.trouble().unwrap().to_string(), "it is down");
    pass(&source, 3_700).await;
    assert_eq!(read(&source).await.unwrap_err(), "somebody: it is down");
}

#[tokio::test(start_paused = true)]
async fn a_lasting_failure_ends_what_was_found() {
    let (_, source) = Told::source([secret("one"), Err(Trouble::lasting("it is not allowed", "allow it"))]);
    read(&source).await.unwrap();
    source.forget();
    assert_eq!(read(&source).await.unwrap_err(), "somebody: it is not allowed");
}

#[tokio::test(start_paused = true)]
async fn what_appears_later_is_found_by_itself_and_what_goes_is_gone() {
    let (_, source) = Told::source([Ok(Answer::Absent), Ok(Answer::Absent), secret("one"), Ok(Answer::Absent)]);
    assert_eq!(read(&source).await.unwrap(), "nothing");
    pass(&source, 5).await;
    assert_eq!(read(&source).await.unwrap(), "one");
    source.forget();
    assert_eq!(read(&source).await.unwrap(), "nothing");
}

#[test]
fn nothing_outlives_the_end_that_its_source_gave() {
    let ends = |ms: u64| {
        let now = Now::read();
        Some(Now { wall_ms: now.wall_ms + ms, ..now.plus(Duration::from_millis(ms)) })
    };
    let memory = |ends, said| {
        let later = Instant::now() + Duration::from_secs(60);
        let good = Good { secret: Secret::new("s"), ends, believed: later, lease: None };
        Memory { last: Some(Last { said, due: later }), good: Some(good), ..Memory::default() }
    };
    let down = || Err(Trouble::passing("it is down", "start it"));
    assert!(memory(ends(60_000), Ok(true)).answer().is_ok_and(|found| found.is_some()));
    assert!(memory(ends(60_000), down()).answer().is_ok_and(|found| found.is_some()));
    assert!(memory(ends(0), Ok(true)).answer().is_err_and(|why| why.to_string().contains("has ended")));
    assert!(memory(ends(0), down()).answer().is_err_and(|why| why.to_string() == "it is down"));
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_be_left_alone_is_not_asked_earlier_but_asked_in_the_end() {
    let later = |seconds| down().map_err(|trouble| trouble.not_before(Duration::from_secs(seconds)));
    let (told, source) = Told::source([secret("one"), later(300), later(86_400), secret("two")]);
    assert_eq!(read(&source).await.unwrap(), "one");
    source.forget();
    assert_eq!(read(&source).await.unwrap(), "one", "it passes");
    pass(&source, 290).await;
    assert_eq!(told.asked(), 2);
    pass(&source, 15).await;
    assert_eq!(told.asked(), 3);
    pass(&source, 3500).await;
    assert_eq!(told.asked(), 3);
    pass(&source, 110).await;
    assert_eq!((told.asked(), read(&source).await.unwrap().as_str()), (4, "two"), "an hour is the most");
}

#[tokio::test(start_paused = true)]
async fn each_question_is_counted_by_what_came_of_it() {
    use crate::config::SourceKind;
    let lasting = || Err(Trouble::lasting("it is not there", "put it there"));
    let (_, source) = Told::source([secret("one"), down(), lasting(), leased("two", 60, "l"), Ok(Answer::Absent)]);
    let questions = crate::sources::Questions::default();
    source.count(Meter::new(SourceKind::OpenBao, questions.clone()));
    for _ in 0..5 {
        source.forget();
        let _ = read(&source).await;
        // What is remembered is no question.
        let _ = read(&source).await;
    }
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("questions", "…", questions);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    for (result, count) in [("secret", 2), ("passing", 1), ("lasting", 1), ("absent", 1)] {
        let line = format!("questions_total{{kind=\"openbao\",result=\"{result}\"}} {count}\n");
        assert!(page.contains(&line), "{page}");
    }
}
