// The page: lists the streams, or plays the one of ?stream=live/cam1. Whatever is shown is set as text, never as HTML.
'use strict';

const element = (id) => document.getElementById(id);
const video = element('video');
const RETRY_MS = 3000;

function say(text, isError = false) {
  element('message').textContent = text;
  element('message').className = isError ? 'error' : '';
}

async function list() {
  let streams;
  try {
    const response = await fetch('/~streams.json');
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    streams = await response.json();
  } catch (error) {
    say(`The list of streams could not be loaded (${error.message}). Trying again …`, true);
    setTimeout(list, RETRY_MS);
    return;
  }
  say(streams.length ? '' : 'Nothing has been broadcast yet. This page looks again by itself.');
  element('streams').replaceChildren(...streams.map(({ name, live }) => {
    const item = document.createElement('li');
    const link = document.createElement('a');
    link.href = '/?stream=' + encodeURIComponent(name);
    link.textContent = name;
    item.append(link);
    if (live) {
      const badge = document.createElement('span');
      badge.className = 'live';
      badge.textContent = 'live';
      item.append(badge);
    }
    return item;
  }));
  setTimeout(list, RETRY_MS);
}

function play(name) {
  const source = '/' + name.split('/').map(encodeURIComponent).join('/') + '/index.m3u8';
  document.title = name + ' – upscope';
  element('title').textContent = name;
  element('playlist').href = source;
  element('links').hidden = false;
  video.hidden = false;
  video.addEventListener('playing', () => say(video.muted ? 'Playing without sound: unmute it with the controls.' : ''));
  video.addEventListener('volumechange', () => { if (!video.muted) say(''); });
  video.addEventListener('waiting', () => say('Waiting for more …'));
  video.addEventListener('ended', () => say('The broadcast is over.'));
  waitFor(source, name, () => {
    say('Starting …');
    if (video.canPlayType('application/vnd.apple.mpegurl')) playNatively(source, name);
    else playWithScript(source, name);
  });
}

// A stream may be opened before it begins.
async function waitFor(source, name, found) {
  let problem;
  try {
    const response = await fetch(source, { cache: 'no-store' });
    if (response.ok) return found();
    problem = response.status === 404 ? `${name} is not being broadcast yet.` : `The server answered ${response.status}.`;
  } catch (error) {
    problem = 'The server cannot be reached.';
  }
  say(problem + ' Trying again …', true);
  setTimeout(waitFor, RETRY_MS, source, name, found);
}

function playNatively(source, name) {
  video.onerror = () => {
    video.onerror = null;
    if (window.Hls && Hls.isSupported()) {
      video.removeAttribute('src');
      playWithScript(source, name);
    } else {
      say(`This browser cannot play ${name}: ${inWords(video.error)}`, true);
    }
  };
  video.src = source;
}

function playWithScript(source, name) {
  if (!window.Hls || !Hls.isSupported()) {
    say('This browser can play HLS neither by itself nor with hls.js (it lacks Media Source Extensions).', true);
    return;
  }
  const hls = new Hls();
  let recoveries = 0;
  hls.on(Hls.Events.FRAG_BUFFERED, () => { recoveries = 0; });
  hls.on(Hls.Events.ERROR, (_, { type, details, fatal, response }) => {
    if (!fatal) return;
    if (type === Hls.ErrorTypes.MEDIA_ERROR && recoveries < 3) {
      recoveries += 1;
      say('The picture cannot be decoded; trying to recover …', true);
      hls.recoverMediaError();
      return;
    }
    hls.destroy();
    const status = response && response.code ? `, status ${response.code}` : '';
    say(`Playing ${name} failed (${details}${status}). Trying again …`, true);
    setTimeout(() => waitFor(source, name, () => playWithScript(source, name)), RETRY_MS);
  });
  hls.loadSource(source);
  hls.attachMedia(video);
}

function inWords(error) {
  switch (error && error.code) {
    case 2: return 'the connection broke.';
    case 3: return 'it cannot be decoded.';
    case 4: return 'its format is not supported.';
    default: return 'playing was stopped.';
  }
}

const stream = new URLSearchParams(location.search).get('stream');
if (!stream) list();
else if (/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$/.test(stream)) play(stream);
else say('This is not the name of a stream; one looks like live/cam1.', true);
