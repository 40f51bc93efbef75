//! What `tollgate dev` prints when everything runs.

use super::environment;
use super::plan::{Plan, ReplicaPlan};
use super::seeding::Seeded;

/// Prints the page. The key is shown only the first time.
pub(super) fn print(plan: &Plan, seeded: &Seeded, first_time: bool, model_ready: bool) {
    println!("{}", render(plan, seeded, first_time, model_ready));
}

fn render(plan: &Plan, seeded: &Seeded, first_time: bool, model_ready: bool) -> String {
    let env_file = environment::file(plan);
    let env_file = std::env::current_dir()
        .ok()
        .and_then(|here| env_file.strip_prefix(here).ok().map(ToOwned::to_owned))
        .unwrap_or(env_file);
    let env_file = env_file.display();
    let key = if first_time {
        format!("{}   (shown once; kept in {env_file})", seeded.api_key)
    } else {
        format!("as before, in {env_file}")
    };
    let gateways: Vec<String> = plan.nodes.iter().map(|node| node.gateway_url()).collect();
    let admins: Vec<String> = plan.nodes.iter().map(|node| node.admin_url()).collect();
    let mut page = format!(
        "\nTollgate is ready: {nodes}, {replicas}.\n\n  \
           Gateway   {gateways}\n  \
           Admin     {admins}\n  \
           Model     {model}   subscription calculus-dev: 50000 tokens an hour\n  \
           API key   {key}\n\n\
         Try, in another shell:\n\n  \
           source {env_file}\n\n  \
           curl $MODEL_ENDPOINT/chat/completions -H \"Authorization: Bearer $API_KEY\" \\\n    \
             -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"What is the derivative of x^3?\"}}], \"max_tokens\": 100}}'\n\n  \
           curl $MAAS_URL/v1/models -H \"Authorization: Bearer $API_KEY\"\n\n  \
           kubectl get maassubscriptions,maasauthpolicies\n\n",
        nodes = count(plan.nodes.len(), "node"),
        replicas = replicas(plan),
        gateways = gateways.join("  "),
        admins = admins.join("  "),
        model = plan.model.name,
    );
    if !model_ready {
        page.push_str("The replicas do not answer yet: calls get 503 until one of them does.\n");
    }
    if !plan.in_process() {
        page.push_str("Each node is a process: kill -9 one of $NODE_PIDS and go on through the others.\n");
    }
    page.push_str(&format!("Ctrl-C drains and stops; everything stays in {}.", plan.data_dir.display()));
    page
}

fn replicas(plan: &Plan) -> String {
    let (name, served) = (&plan.model.name, &plan.model.served);
    let called = if name == served { name.clone() } else { format!("{served}, here called {name}") };
    match &plan.replicas {
        ReplicaPlan::Simulated(ports) => format!("{} of {called}", count(ports.len(), "simulated replica")),
        ReplicaPlan::Running(urls) => format!("{} of {called}", count(urls.len(), "replica")),
    }
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
