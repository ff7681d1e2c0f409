import { count, duration, figure, percent } from "../format";
import { doneOf, type Job, modelsOf, type Rates } from "../jobs";

interface TableProps {
  jobs: Job[];
  rates: Rates;
  /** Milliseconds since 1970, by the server's clock. */
  now: number;
}

export function JobTable({ jobs, rates, now }: TableProps) {
  const tenants = jobs.some((each) => each.tenant !== "");
  return (
    <table class="jobs">
      <thead>
        <tr>
          <th scope="col">job</th>
          <th scope="col" class="mid">
            model
          </th>
          {tenants && <th scope="col">tenant</th>}
          <th scope="col">state</th>
          <th scope="col">done</th>
          <th scope="col" class="number mid">
            requests/s
          </th>
          <th scope="col" class="number">
            failed
          </th>
          <th scope="col" class="number mid">
            age
          </th>
        </tr>
      </thead>
      <tbody>
        {jobs.map((job) => (
          <Row key={job.id} job={job} tenants={tenants} rate={figure(rates.of(job))} now={now} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ job, tenants, rate, now }: { job: Job; tenants: boolean; rate: string; now: number }) {
  const [done, total, failed] = [doneOf(job), Number(job.total), Number(job.failed)];
  return (
    <tr>
      <th scope="row">
        <code>{job.id}</code>
      </th>
      <td class="mid" title={Object.keys(job.models).join(", ")}>
        {modelsOf(job)}
      </td>
      {tenants && <td>{job.tenant}</td>}
      <td>{job.state.replace("JOB_STATE_", "").toLowerCase()}</td>
      <td class="progress">
        <meter min={0} max={total} value={done} aria-label={`${job.id}: requests done`} />
        <span class="note">
          {count(done)} of {count(total)}, {percent(done / total)}
        </span>
      </td>
      <td class="number mid">{rate}</td>
      <td class={failed > 0 ? "number bad" : "number"}>{count(failed)}</td>
      <td class="number mid">{duration(Math.max(0, now - Number(job.created_unix_ms)) / 1000)}</td>
    </tr>
  );
}
