"""The private part of agents: how one turn is advanced, step by durable step."""
