/** Responses of the API, as far as the panel reads them. Fields that a server of another version lacks are optional. */

export interface Limit {
  readonly metric: string;
  readonly per: string;
  readonly currency?: string;
  readonly api_key?: string;
  readonly group?: string;
  readonly max: number;
  readonly used: number;
  readonly reserved: number;
  readonly remaining: number;
  readonly reset_at: string | null;
}

export interface Quota {
  readonly tier: string;
  readonly limits: readonly Limit[];
  readonly grants?: readonly Grant[];
  readonly keys?: readonly { readonly id: string; readonly name: string; readonly limits: readonly Limit[] }[];
}

interface Grant {
  readonly metric: string;
  readonly per: string;
  readonly currency?: string;
  readonly amount: number;
  readonly until?: string | null;
  readonly reason?: string;
}

export interface Money {
  readonly cost: string;
  readonly currency: string;
}

export interface UsageRow {
  readonly user?: string;
  readonly day?: string;
  /** Its beginning, with the zone's offset. */
  readonly hour?: string;
  readonly month?: string;
  readonly model?: string;
  readonly group?: string;
  readonly provider?: string;
  readonly api_key?: string;
  /** This row is the sum of so many. */
  readonly others?: number;
  readonly requests: number;
  readonly tokens: number;
  readonly input_tokens: number;
  readonly cached_tokens: number;
  readonly output_tokens: number;
  readonly reasoning_tokens: number;
  readonly costs: readonly Money[];
  readonly estimated_requests: number;
  readonly unsettled_requests: number;
}

export interface Usage {
  readonly from: string;
  readonly to: string;
  readonly timezone: string;
  /** Charges of before this time may be missing. */
  readonly missing_before?: string;
  readonly rows: readonly UsageRow[];
}

export interface Session {
  readonly id: string;
  readonly created_at: string;
  readonly last_used_at: string;
  readonly expires_at: string;
  readonly ip: string;
  readonly client: string;
  readonly current?: boolean;
}

export interface Key {
  readonly id: string;
  readonly name: string;
  readonly models?: readonly string[];
  readonly addresses?: readonly string[];
  readonly limits?: readonly {
    readonly metric: string;
    readonly per: string;
    readonly max: number;
    readonly currency?: string;
  }[];
  readonly group?: string;
  readonly require_signature: boolean;
  readonly created_at: string;
  readonly expires_at: string | null;
  readonly last_used_at?: string | null;
}

export interface NewKey extends Key {
  readonly key: string;
  readonly signing_secret?: string;
  readonly user?: string;
}

export interface User {
  readonly username: string;
  readonly quota_tier: string;
  readonly roles: readonly string[];
  readonly is_active: boolean;
  readonly active_from: string | null;
  readonly expires_at: string | null;
  readonly banned_until: string | null;
  readonly ban_reason: string | null;
  readonly must_change_password: boolean;
  readonly max_parallel: number | null;
  readonly models: readonly string[] | null;
  readonly default_group: string | null;
  readonly second_factor: boolean;
  readonly service: boolean;
  readonly trust_step: string | null;
  readonly limits: readonly { readonly metric: string; readonly per: string; readonly max: number }[];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly created_at: string | null;
  readonly state: string;
}

export interface Group {
  readonly name: string;
  readonly description: string;
  readonly members: readonly string[];
  readonly owners: readonly string[];
  readonly users?: readonly string[];
  readonly limits: readonly {
    readonly metric: string;
    readonly per: string;
    readonly max: number;
    readonly currency?: string;
  }[];
  readonly models: readonly string[] | null;
  readonly max_parallel: number | null;
  readonly origin: string;
}

export interface Provider {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  readonly in_flight: number;
  readonly cap: number | null;
  readonly asked: number;
  readonly failed: number;
  readonly retries: number;
  readonly error_rate: number | null;
  readonly first_event_ms: { readonly p50: number; readonly p90: number; readonly p99: number } | null;
  readonly keys: readonly {
    readonly key: number;
    readonly breaker: string;
    readonly limited_for_ms: number;
    readonly circuits: readonly { readonly model: string; readonly breaker: string; readonly limited_for_ms: number }[];
    readonly in_flight: number;
    readonly probe: {
      readonly at: string;
      readonly ok: boolean;
      readonly reason: string | null;
      readonly balance: {
        readonly available: boolean;
        readonly amounts: readonly { readonly currency: string; readonly total: string }[];
      } | null;
    } | null;
  }[];
}

/** An event of the proxy; `data` by its type. */
export interface Envelope {
  readonly id: string;
  readonly time: string;
  readonly type: string;
  readonly node: string;
  readonly request_id: string | null;
  readonly trace_id: string | null;
  readonly user: string | null;
  readonly group: string | null;
  readonly key_id: string | null;
  readonly address: string | null;
  readonly data: Facts;
}

export type Facts = Readonly<Record<string, unknown>>;

/** A line of a log. */
export interface LogLine extends Facts {
  readonly ts: string;
  readonly event: string;
}

export interface LogPage {
  readonly events: readonly LogLine[];
  readonly next_cursor: string | null;
}

export interface Minute {
  readonly at: string;
  readonly ok: number;
  readonly refused: number;
  readonly failed: number;
  readonly client_gone: number;
  readonly first_token_p95_ms: number | null;
  readonly tokens: number;
  /** Nano-units by currency. */
  readonly cost: Readonly<Record<string, number>>;
}

export interface Overview {
  readonly at: string;
  readonly minutes: readonly Minute[];
  readonly now: {
    readonly in_flight: number;
    readonly waiting: number;
    readonly active_users: number;
    readonly requests_per_minute: number;
  };
  readonly by_model: readonly Facts[];
  readonly by_provider: readonly Facts[];
  readonly attention: readonly ({ readonly kind: string } & Facts)[];
}
