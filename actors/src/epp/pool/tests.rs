use super::*;
use crate::epp::PrefixHashes;

const A: &str = "http://a:8000";
const B: &str = "http://b:8000";
const C: &str = "http://c:8000";

/// The pool of `before` with the replicas at `urls`; all of them are up.
fn pool_of(before: &Pool, urls: &[&str], first_id: u64) -> Arc<Pool> {
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    let mut next = first_id;
    let pool = before.with_replicas(&urls, || {
        next += 1;
        ReplicaId(next - 1)
    });
    pool.replicas.iter().for_each(|replica| replica.comes_up());
    Arc::new(pool)
}

fn pool(urls: &[&str]) -> Arc<Pool> {
    pool_of(&Pool::empty(Name::new("llm", "qwen"), 7), urls, 1)
}

/// Where a call with `prompt` would go first, second, and so on.
fn order(pool: &Arc<Pool>, prompt: &[u8]) -> Vec<String> {
    let prefix = PrefixHashes::of("qwen", "", prompt);
    let Ok(mut ranking) = pool.rank(&CallShape { prefix: &prefix, prompt_tokens: 1 }) else { return Vec::new() };
    std::iter::from_fn(|| ranking.next_route().ok()).map(|route| route.base().to_owned()).collect()
}

/// Where a call with `prompt` goes.
fn best(pool: &Arc<Pool>, prompt: &[u8]) -> String {
    let prefix = PrefixHashes::of("qwen", "", prompt);
    let call = CallShape { prefix: &prefix, prompt_tokens: 1 };
    pool.rank(&call).unwrap().next_route().unwrap().base().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_ranking_has_every_replica_that_is_up_once() {
    let pool = pool(&[A, B, C]);
    pool.replicas[1].goes_down("connection refused".to_owned());
    let mut order = order(&pool, b"");
    order.sort();
    assert_eq!(order, [A, C]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_goes_down_after_it_was_ranked_is_passed_over() {
    let pool = pool(&[A, B]);
    let prefix = PrefixHashes::default();
    let mut ranking = pool.rank(&CallShape { prefix: &prefix, prompt_tokens: 1 }).unwrap();
    pool.replicas[0].goes_down("connection refused".to_owned());
    assert_eq!(ranking.next_route().unwrap().base(), B);
    assert_eq!(ranking.next_route().unwrap_err(), NoReplica::Exhausted);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_changes_keeps_what_it_knows_of_the_replicas_that_stay() {
    let before = pool(&[A, B]);
    let prompt = vec![b'x'; 4096];
    let first = best(&before, &prompt);
    let (stays, goes) = if first == A { (A, B) } else { (B, A) };
    let after = pool_of(&before, &[C, stays], 10);
    let ids = |pool: &Pool| pool.replicas.iter().map(|replica| (replica.url.clone(), replica.id)).collect::<Vec<_>>();
    let id = ids(&before).into_iter().find(|(url, _)| url == stays).unwrap().1;
    assert_eq!(ids(&after), [(C.to_owned(), ReplicaId(10)), (stays.to_owned(), id)]);
    for _ in 0..20 {
        assert_eq!(best(&after, &prompt), stays, "the prompt is cached there");
    }
    // One that has left and comes back is another replica, with an empty cache.
    let again = pool_of(&pool_of(&after, &[C], 20), &[C, goes], 20);
    assert_eq!(ids(&again)[1], (goes.to_owned(), ReplicaId(20)));
}
