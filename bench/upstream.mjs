// The upstream of both: the simulator in a process of its own, without pacing but where the model's name asks for it.
import { createSimulator } from "../dist/simulator/server.js";

const simulator = await createSimulator({ firstTokenMs: 0, tokensPerSecond: 0 });
console.log(JSON.stringify({ event: "listening", url: simulator.url }));
process.on("disconnect", () => process.exit());
