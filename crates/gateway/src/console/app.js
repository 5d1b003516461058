// Signing in and out, and the parts that work in between.

import { Account } from './account.js';
import { Connect } from './connect.js';
import { Live } from './live.js';
import { byId, reason, show } from './page.js';
import { Recording } from './recording.js';
import { Speech } from './speech.js';
import { Status } from './status.js';

const [form, panels, who, signOut, error] = ['sign-in', 'console', 'who', 'sign-out', 'sign-in-error'].map(byId);
const [clientId, secret, service] = ['client-id', 'client-secret', 'service-token'].map(byId);
const parts = [new Live(), new Recording(), new Speech(), new Status(), new Connect()];
let account = null;

const byService = () => form.elements.with.value === 'service';

function choose() {
  byId('with-client').hidden = byService();
  byId('with-service').hidden = !byService();
  clientId.disabled = secret.disabled = byService();
  service.disabled = !byService();
}

async function signIn() {
  show(error);
  const submit = form.querySelector('[type=submit]');
  submit.disabled = true;
  let candidate = null;
  try {
    candidate = byService()
      ? await Account.ofServiceToken(service.value.trim())
      : await Account.ofClient(clientId.value.trim(), secret.value.trim());
    const { project } = await candidate.json('/console/status');
    enter(candidate, project.name);
  } catch (failure) {
    candidate?.forget();
    show(error, reason(failure));
  } finally {
    submit.disabled = false;
  }
}

function enter(entered, project) {
  account = entered;
  account.addEventListener('lost', ({ detail }) => leave(`Signed out: ${reason(detail)}`));
  secret.value = service.value = '';
  show(who, project);
  [form.hidden, panels.hidden, signOut.hidden] = [true, false, false];
  parts.forEach((part) => part.open(account));
  byId('live-start').focus();
}

function leave(why) {
  if (!account) return;
  parts.forEach((part) => part.close());
  account.forget();
  account = null;
  show(who);
  [form.hidden, panels.hidden, signOut.hidden] = [false, true, true];
  show(error, why);
  (byService() ? service : clientId).focus();
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  signIn();
});
form.addEventListener('change', choose);
signOut.addEventListener('click', () => leave());
// Tokens end with the page, also where a browser keeps it to come back to.
addEventListener('pagehide', () => leave());
choose();
