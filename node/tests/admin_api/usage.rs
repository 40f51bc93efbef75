//! What was used: one's own, and for administrators everybody's.

use std::time::Duration;

use actors::quota::{Amount, Charge, Source};
use serde_json::{Value, json};

use crate::world::{ADMIN, ALICE, World};

const USAGE: &str = "/maas-api/v1/usage";

fn charge(input: u64, output: u64) -> Charge {
    Charge {
        amount: Amount::of_call(input, output),
        cached: 16,
        reasoning: 5,
        source: Source::Reported,
        is_absurd: false,
        beyond: Amount::default(),
    }
}

/// Makes calls with a new key of alice: one that was reported, one that was estimated, one that was given up before a replica had it,
/// one that was refused. Returns the key's id and itself.
async fn use_some(world: &World) -> (String, String) {
    let made = world.ask("POST", "/maas-api/v1/api-keys", ALICE, r#"{"name":"k"}"#).await.json();
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    let (id, secret) = (text("id"), text("key"));
    let actors = &world.context.actors;
    let model = actors.routing.by_path("llm", "gpt").unwrap();
    let permit = actors.routing.authorize(actors.auth.authenticate(Some(&secret)).unwrap(), &model, None).unwrap();
    let reserve = || actors.quota.reserve(&permit, Amount::of_call(100, 50));
    reserve().await.unwrap().settle(charge(90, 40), None);
    let estimated = Charge { source: Source::Estimated, is_absurd: true, ..charge(100, 50) };
    reserve().await.unwrap().settle(estimated, None);
    drop(reserve().await.unwrap());
    actors.quota.note_limited(&permit);
    (id, secret)
}

/// What `path` says once `calls` calls are in it.
async fn told(world: &World, path: &str, token: &str, calls: u64) -> Value {
    for _ in 0..100 {
        let answer = world.ask("GET", path, token, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = answer.json();
        if answer["total"]["calls"] == calls && answer["total"]["limited_calls"] == 1 {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("usage never had {calls} calls");
}

#[tokio::test]
async fn what_calls_used_is_told_to_those_it_concerns() {
    let world = World::start().await;
    world.furnish().await;
    let (id, secret) = use_some(&world).await;

    let own = told(&world, USAGE, ALICE, 2).await;
    let [row] = &own["data"].as_array().unwrap()[..] else { panic!("{own}") };
    assert!(row["begins"].as_str().unwrap().ends_with(":00:00Z"), "{row}");
    let mut numbers = json!({
        "calls": 2, "limited_calls": 1, "input": 190, "cached_input": 32, "output": 90, "reasoning_output": 10, "total": 280,
        "counted_calls": 0, "counted_total": 0, "estimated_calls": 1, "estimated_total": 150, "absurd_calls": 1,
    });
    assert_eq!(own["total"], numbers);
    let of = row["subscription"].as_str().unwrap().to_owned();
    let labels = json!({"begins": row["begins"], "seconds": 3600, "user": "alice", "key": id, "subscription": of, "model": "llm/gpt",
        "organization": row["organization"], "cost_center": row["cost_center"]});
    for (name, value) in labels.as_object().unwrap() {
        numbers[name] = value.clone();
    }
    assert_eq!(row, &numbers);

    // A key sees what its owner sees; an administrator sees everybody.
    assert_eq!(told(&world, USAGE, &secret, 2).await["data"], own["data"]);
    assert_eq!(told(&world, USAGE, ADMIN, 2).await["data"], own["data"]);
    let theirs = world.ask("GET", &format!("{USAGE}?username=bob"), ADMIN, "").await.json();
    assert_eq!((&theirs["data"], &theirs["total"]["calls"]), (&json!([]), &json!(0)));

    // Added up, and over other times.
    let by_model = told(&world, &format!("{USAGE}?by=model"), ALICE, 2).await;
    let [row] = &by_model["data"].as_array().unwrap()[..] else { panic!("{by_model}") };
    assert_eq!((&row["model"], &row["total"], row.get("user")), (&json!("llm/gpt"), &json!(280), None));
    for (query, rows) in [("from=2020-01-01&to=2020-02-01", 0), ("from=2020-01-01T00:00:00Z", 1), ("to=2020-01-01", 0)]
    {
        let answer = world.ask("GET", &format!("{USAGE}?{query}"), ALICE, "").await.json();
        assert_eq!(answer["data"].as_array().unwrap().len(), rows, "{query}: {answer}");
    }

    let csv = world.ask("GET", &format!("{USAGE}?format=csv&by=user,key"), ALICE, "").await;
    let expected = format!(
        "begins,seconds,user,key,subscription,model,organization,cost_center,calls,limited_calls,input,cached_input,output,\
         reasoning_output,total,counted_calls,counted_total,estimated_calls,estimated_total,absurd_calls\n\
         ,,alice,{id},,,,,2,1,190,32,90,10,280,0,0,1,150,1\n"
    );
    assert_eq!((csv.status, csv.text), (200, expected));
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_with_what_to_write() {
    let world = World::start().await;
    world.furnish().await;
    let table = [
        ("?username=bob", ALICE, 403, "their own usage"),
        ("?by=colour", ALICE, 400, "time,user,key"),
        ("?format=xml", ALICE, 400, "json or csv"),
        ("?from=yesterday", ALICE, 400, "`from` is no time"),
        ("?to=2026-13-01", ALICE, 400, "`to` is no time"),
        ("?until=2026-12-01", ALICE, 400, "from, to"),
        ("", "sk-oai-none", 403, ""),
    ];
    for (query, token, status, what) in table {
        let answer = world.ask("GET", &format!("{USAGE}{query}"), token, "").await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
        assert!(answer.text.contains(what), "{query}: {}", answer.text);
    }
    assert_eq!(world.ask("POST", USAGE, ALICE, "{}").await.status, 405);
}
