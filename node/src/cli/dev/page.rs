//! What `tollgate dev` prints when everything runs.

use super::environment;
use super::plan::{Plan, ReplicaPlan};
use super::seeding::{CALCULUS, CODING_AGENTS, Seeded};

/// How to start the agents and a program with an SDK. All of it stands in dev.env, so the lines work as they are.
const CLIENTS: &str = r#"Claude Code:

  ANTHROPIC_BASE_URL=$MAAS_URL ANTHROPIC_AUTH_TOKEN=$AGENT_API_KEY ANTHROPIC_MODEL=$MODEL_NAME \
    ANTHROPIC_DEFAULT_HAIKU_MODEL=$MODEL_NAME CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 claude

Codex:

  codex -m $MODEL_NAME -c model_provider=tollgate \
    -c "model_providers.tollgate={name=\"Tollgate\", base_url=\"$MAAS_URL/v1\", env_key=\"AGENT_API_KEY\", wire_api=\"responses\"}"

A Python program (pip install openai):

  OPENAI_BASE_URL=$MODEL_ENDPOINT python3 -c 'import os, openai; print(openai.OpenAI().responses.create(
    model=os.environ["MODEL_NAME"], input="What is the derivative of x^3?", max_output_tokens=100).output_text)'

"#;

/// Prints the page. The keys are shown only the first time.
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
    let key = |secret: &str| if first_time { secret.to_owned() } else { "as before".to_owned() };
    let gateways: Vec<String> = plan.nodes.iter().map(|node| node.gateway_url()).collect();
    let admins: Vec<String> = plan.nodes.iter().map(|node| node.admin_url()).collect();
    let mut page = format!(
        "\nTollgate is ready: {nodes}, {replicas}.\n\n  \
           Gateway   {gateways}\n  \
           Admin     {admins}\n  \
           Model     {model}\n  \
           API key   {key}   subscription {subscription}: {limit} tokens an hour\n  \
           For coding agents\n  \
                     {agent_key}   subscription {agent_subscription}: {agent_limit} tokens an hour\n\n\
         The keys are kept in {env_file}. Try, in another shell:\n\n  \
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
        key = key(&seeded.key.secret),
        subscription = CALCULUS.subscription,
        limit = CALCULUS.tokens_per_hour,
        agent_key = key(&seeded.agent_key.secret),
        agent_subscription = CODING_AGENTS.subscription,
        agent_limit = CODING_AGENTS.tokens_per_hour,
    );
    page.push_str(CLIENTS);
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a shell makes of the lines for `program`, if that shows its arguments and `seen` of its environment.
    fn run(program: &str, seen: &str) -> String {
        let from = CLIENTS.lines().skip_while(|line| !line.trim_start().starts_with(program));
        let mut command = String::new();
        for line in from {
            command.push_str(line);
            command.push('\n');
            if !line.ends_with('\\') {
                break;
            }
        }
        let script = format!("codex() {{ echo \"$@\"; }}; claude() {{ echo {seen}; }}; {command}");
        let variables = [("MAAS_URL", "http://h:1"), ("MODEL_NAME", "m"), ("AGENT_API_KEY", "k")];
        let output = Command::new("sh").arg("-euc").arg(script).envs(variables).output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    #[test]
    fn the_lines_for_agents_mean_in_a_shell_what_they_should() {
        let provider = r#"{name="Tollgate", base_url="http://h:1/v1", env_key="AGENT_API_KEY", wire_api="responses"}"#;
        let arguments = format!("-m m -c model_provider=tollgate -c model_providers.tollgate={provider}");
        assert_eq!(run("codex", ""), arguments);
        let seen = "$ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN $ANTHROPIC_MODEL $ANTHROPIC_DEFAULT_HAIKU_MODEL";
        assert_eq!(run("ANTHROPIC_BASE_URL", seen), "http://h:1 k m m");
    }
}
