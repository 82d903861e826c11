import { expect, it, vi } from "vitest";
import { createRunningRequests } from "../../src/gateway/running-requests.ts";

const request = () => ({ slot: -1 });

it("waits for those that run now, and apart from that for none at all", async () => {
  const running = createRunningRequests();
  await Promise.all([running.whenIdle(), running.whenRunningEnd()]);
  const [first, second, later] = [request(), request(), request()];
  running.add(first);
  running.add(second);
  const onEnd = vi.fn();
  const onIdle = vi.fn();
  const end = running.whenRunningEnd().then(onEnd);
  const idle = running.whenIdle().then(onIdle);
  running.add(later);
  running.delete(first);
  await Promise.resolve();
  expect(onEnd).not.toHaveBeenCalled();
  running.delete(second);
  await end;
  expect(onIdle).not.toHaveBeenCalled();
  expect(running.all()).toEqual([later]);
  running.delete(later);
  await idle;
  expect(running.count()).toBe(0);
});
